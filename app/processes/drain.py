"""The end of this process, as far as it has come: one object that every part asks."""

import asyncio


class Drain:
    """`begun`: the process is about to end and still answers. `closing`: its ports close, requests in flight finish."""

    def __init__(self) -> None:
        self.begun = False
        self.closing = asyncio.Event()

    def begin(self) -> None:
        """Announces the end. Safe in a signal handler."""
        self.begun = True
