"""Reads server-sent events as a client does."""

import json
from collections.abc import Iterator
from typing import Any

Event = tuple[str, str, dict[str, Any]]  # id, kind and data; Any: what JSON holds


def parsed(lines: Iterator[str]) -> Iterator[Event]:
    fields: dict[str, str] = {}
    for line in lines:
        if line and not line.startswith(":"):
            name, _, value = line.partition(": ")
            fields[name] = value
        elif fields:
            yield fields["id"], fields["event"], json.loads(fields["data"])
            fields = {}
