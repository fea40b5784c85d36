"""Tells a request that a web page may have made its reader's browser send from those of programs and of our own page.

A service without keys trusts whoever reaches it. A browser reaches what its reader does not mean: a page elsewhere can
send a form to 127.0.0.1, or point its own name at that address (DNS rebinding) and then read answers, too.
"""

import ipaddress
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

SHOWN = 80  # characters of a header that a message repeats


class Hosts:
    """The names that no stranger can point at this service, and the origins whose pages may call it.

    These are IP addresses, names without a dot such as localhost, names below .localhost, and those that are `trusted`:
    "api.example.com", or "*.example.com" for all names below.
    """

    def __init__(self, trusted: Sequence[str], origins: Sequence[str]) -> None:
        self._names = frozenset(name for name in trusted if not name.startswith("*"))
        self._below = (".localhost", *(name[1:] for name in trusted if name.startswith("*")))
        self._origins = frozenset(origins)
        self._named = bool(trusted)

    def refuse(self, headers: Mapping[str, str]) -> str | None:
        """Returns why a request is for another service; None where no names were set, and for those that were."""
        if not self._named or self._trusts(host := headers.get("host", "")):
            return None
        return f"this service is not {host[:SHOWN]!r}"

    def doubt(self, headers: Mapping[str, str]) -> str | None:
        """Returns why a request may come from a page that its reader did not mean to call this; None if it cannot."""
        host, origin = headers.get("host", ""), headers.get("origin")
        if not self._trusts(host):
            return f"it came for the host {host[:SHOWN]!r}, which RESNEXT_TRUSTED_HOSTS does not name"
        if origin is None or {origin, "*"} & self._origins or _place(origin) == _bare(host):
            return None
        return f"it came from a page of {origin[:SHOWN]!r}, which RESNEXT_CORS_ORIGINS does not name"

    def _trusts(self, host: str) -> bool:
        name = _name(host)
        return "." not in name or name in self._names or name.endswith(self._below) or _is_address(name)


def _name(host: str) -> str:
    """Returns the name or address in a Host header, without its port. No header is "", since browsers send one."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0].rstrip(".").lower() if ":" in host else host.rstrip(".").lower()


def _bare(host: str) -> str:
    return host.lower().removesuffix(":80").removesuffix(":443")


def _place(origin: str) -> str:
    """Returns the host and the port of an origin; "" for `null`, the origin of a page that hides its own."""
    try:
        return _bare(urlsplit(origin).netloc)
    except ValueError:
        return ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
