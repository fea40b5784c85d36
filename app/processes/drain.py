"""How far the end of this process has come: one object that every part asks."""

import asyncio


class Drain:
    """The two stages of the end.

    `begun`: the process will end soon and still answers. `closing`: its ports close and requests in flight finish.
    """

    def __init__(self) -> None:
        self.begun = False
        self.closing = asyncio.Event()

    def begin(self) -> None:
        """Announces the end. Safe in a signal handler."""
        self.begun = True
