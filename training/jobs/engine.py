"""The engine of the jobs (DBOS), which here reads JSON and nothing else.

A row of its database names the format that it is in, and the engine believes it; one of its formats is pickle, which
runs what it holds. Whoever may write a row, a trainer in another container for one, could run code in the service. So
the engine's one way to a pickle is closed as this module is imported, and all that use the engine import it from here.
It takes more than a second to import.
"""

import logging
from typing import NoReturn

from dbos import DBOS, DBOSClient, DBOSConfig, DBOSPortableJSONSerializer, error
from dbos._serialization import DefaultSerializer

__all__ = ["DBOS", "DBOSClient", "DBOSConfig", "DBOSPortableJSONSerializer", "error"]

MOST_COMPLAINTS = 100


def _refuse(*_: object) -> NoReturn:
    raise TypeError("it is in the format pickle, which is never read; it should be portable_json")


DefaultSerializer.deserialize = _refuse  # type: ignore[assignment, method-assign]  # the engine has no setting for it


class _OnceEach(logging.Filter):
    """Lets a complaint about an unreadable row through once: clients and metrics ask for all rows every second."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        if "could not be deserialized" not in message:
            return True
        new = message not in self._seen and len(self._seen) < MOST_COMPLAINTS
        if new:
            self._seen.add(message)
        return new


logging.getLogger("dbos").addFilter(_OnceEach())
