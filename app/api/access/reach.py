"""Decides what callers without a key may do, where the service has no keys: by who can reach it."""

import ipaddress
import socket
from collections.abc import Iterable, Sequence

from app.api.access.scopes import Scope

MAKE_A_KEY = "set RESNEXT_API_KEYS_FILE (`resnext keys new NAME` makes a key), or RESNEXT_INSECURE=true"


def addresses_of(host: str) -> list[str]:
    """Returns the addresses that listening on `host` means; the name itself where it cannot be resolved."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError:
        return [host]
    return [str(address[0]) for *_, address in found]


def beyond_this_machine(addresses: Iterable[str]) -> list[str]:
    """Returns the addresses that other machines may reach: all but loopback ones and the paths of Unix sockets."""
    return list(dict.fromkeys(address for address in addresses if not _is_local(address)))


def scope_without_key(addresses: Sequence[str], insecure: bool) -> Scope:
    """Returns what everybody may do on a service that has no keys and listens on these addresses."""
    return "predict" if beyond_this_machine(addresses) and not insecure else "admin"


def warning(addresses: Sequence[str], insecure: bool) -> str | None:
    """Returns the line of the log for a service without keys that other machines may reach; else None."""
    reached = ", ".join(beyond_this_machine(addresses))
    if not reached:
        return None
    if insecure:
        return (
            f"RESNEXT_INSECURE is true and there are no API keys: everybody who reaches {reached} may train, upload, "
            "activate and delete"
        )
    return (
        f"listening on {reached} without API keys: everybody may classify, and nobody may train, upload, activate or "
        f"delete. To allow it, {MAKE_A_KEY}, which lets everybody"
    )


def _is_local(address: str) -> bool:
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return "/" in address or address.startswith("\0")  # a Unix socket
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return (mapped or found).is_loopback
