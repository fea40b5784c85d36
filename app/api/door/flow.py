"""Which way bytes may flow on a connection."""

import asyncio

from uvicorn.protocols.http.flow_control import FlowControl


class Flow(FlowControl):
    """uvicorn's flow control, which can also be held: then the application's wish to read more waits."""

    def __init__(self, transport: asyncio.Transport) -> None:
        super().__init__(transport)
        self._held = False
        self.resumed = False  # the client has read enough for another part of the answer

    def hold(self, held: bool) -> None:
        """Stops reading, or allows it again."""
        if held == self._held:
            return
        self._held = held
        if held:
            self.pause_reading()
        else:
            self.resume_reading()

    def resume_reading(self) -> None:
        if not self._held:
            super().resume_reading()

    def resume_writing(self) -> None:
        self.resumed = True
        super().resume_writing()
