"""Decides what a caller may do, by the key that came with the request."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from app.api.access.browsers import Hosts
from app.api.access.keys import Keys
from app.api.access.reach import MAKE_A_KEY
from app.api.access.scopes import Scope, includes
from app.errors import Forbidden, Unauthorized, UntrustedHost

if TYPE_CHECKING:
    from app.api.access.rate import RateLimit  # importing it takes 0.1 s, and few want it

CHALLENGE = "Bearer"


class Caller(NamedTuple):
    """Whoever sends a request. `key` is the name of the key that came, "" where none did that is known.

    `doubt` is why a caller without a key has less than others.
    """

    key: str
    scope: Scope | None
    doubt: str | None = None


class Access:
    """The rule of who may do what, for requests of every protocol.

    Where the service has no keys, everybody has the scope `without_key`, but for requests that a web page may have made
    a browser send: they may only classify.
    """

    def __init__(self, keys: Keys, without_key: Scope, hosts: Hosts, rate: "RateLimit | None" = None) -> None:
        self.keys = keys
        self._hosts = hosts
        self._rate = rate
        self._everybody = Caller("", without_key)

    def caller(self, headers: Mapping[str, str], needed: Scope | None) -> Caller:
        """Returns who sends a request, by its headers, whose names are in lower case, and for which scope.

        Raises UntrustedHost.
        """
        if complaint := self._hosts.refuse(headers):
            raise UntrustedHost(complaint)
        if not self.keys:
            if needed != "predict" and self._everybody.scope != "predict" and (doubt := self._hosts.doubt(headers)):
                return Caller("", "predict", doubt)
            return self._everybody
        found = self.keys.find(_presented(headers))
        return Caller(found.name, found.scope) if found else Caller("", None)

    def require(self, caller: Caller, needed: Scope | None, address: str) -> None:
        """Raises Unauthorized or Forbidden unless the caller has the scope that is needed, or more.

        `address` is the client's. Raises RateLimited, but never where no key is needed: a probe has no limit.
        """
        if needed is None:
            return
        if self._rate is not None:
            self._rate.take(caller.key, address)
        if includes(caller.scope, needed):
            return
        if caller.scope is None:
            raise Unauthorized(
                "this needs one of the service's API keys, as `Authorization: Bearer KEY` or `X-API-Key: KEY`",
                headers={"WWW-Authenticate": CHALLENGE},
            )
        if caller.doubt:
            raise Forbidden(f"this needs the scope {needed}, and a key: {caller.doubt}", scope=needed)
        if not caller.key:
            raise Forbidden(
                f"this needs the scope {needed}: a service without API keys that other machines can reach only "
                f"classifies. {MAKE_A_KEY[0].upper()}{MAKE_A_KEY[1:]}, for the service",
                scope=needed,
            )
        raise Forbidden(
            f"this needs a key with the scope {needed}, the key {caller.key!r} has {caller.scope}",
            headers={"WWW-Authenticate": f'{CHALLENGE} error="insufficient_scope", scope="{needed}"'},
            scope=needed,
        )


def _presented(headers: Mapping[str, str]) -> bytes:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    key = token.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
    return key.encode("latin-1")  # the bytes as they were sent
