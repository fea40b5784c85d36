"""How far the end of this process has come: one object that every part asks."""

import asyncio


class Drain:
    """The stages of the end.

    `begun`: the process will end soon and still answers. `closing`: its ports close and requests in flight finish.
    `answered`: they have finished, or had their time, and the parts of the service end.
    """

    def __init__(self) -> None:
        self.begun = False
        self.closing = asyncio.Event()
        self.answered = False

    def begin(self) -> None:
        """Announces the end. Safe in a signal handler."""
        self.begun = True
