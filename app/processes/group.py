"""Keeps several processes that serve on one port, for a load that one process cannot carry.

Each process is the whole service. It has its own listening socket on the port (SO_REUSEPORT), which it opens once its
first model is loaded, and the kernel spreads connections over these sockets. With one shared socket, the process that
wakes first would take all waiting connections.
"""

import asyncio
import contextlib
import errno
import functools
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence

from app.execution.cores import usable_cores
from app.observability.metrics import FOLDER, forget_process
from app.observability.stray import log_descriptor
from app.processes.keeper import GRACE_S, Keeper, training_worker
from app.settings import Settings, SettingsError
from training.errors import words_of

MEMBER = "--member"  # of `python -m app`: this process is one of several
BAD_SETTINGS = 2
START_FAILED = 3  # uvicorn's
FATAL = {
    BAD_SETTINGS: "its settings cannot work; its log says why",
    START_FAILED: "its start failed; its log says why",
}


def sockets_of(settings: Settings) -> list[socket.socket]:
    """Opens sockets on a port that other processes of this service share. Raises SettingsError."""
    with _port_errors(settings.host, settings.port, "RESNEXT_PORT"):
        return [_bound(family, address) for family, address in _addresses(settings.host, settings.port)]


def listening_sockets(settings: Settings) -> list[socket.socket]:
    """Opens the sockets of a service that is one process; nobody shares the port. Raises SettingsError.

    The sockets listen at once: a client that connects before the service is ready waits, and a second service finds
    the port taken.
    """
    require_free_grpc_port(settings)
    found: list[socket.socket] = []
    with _port_errors(settings.host, settings.port, "RESNEXT_PORT"):
        for family, (host, _) in _addresses(settings.host, settings.port):
            # with 0, every address gets the port that the first one got
            port = found[0].getsockname()[1] if found else settings.port
            found.append(socket.create_server((host, port), family=family))
    return found


def require_free_grpc_port(settings: Settings) -> None:
    """Raises SettingsError when the gRPC port is taken. gRPC opens it later, too late for a message of one line."""
    if settings.grpc_port is None:
        return
    with _port_errors(settings.host, settings.grpc_port, "RESNEXT_GRPC_PORT"):
        for family, address in _addresses(settings.host, settings.grpc_port):
            socket.create_server(address, family=family).close()


def serve_in_processes(settings: Settings, opened: Callable[[Sequence[str]], None]) -> int:
    """Keeps `settings.processes` processes and the training worker until SIGTERM or Ctrl-C. Returns an exit status.

    `opened` is called with the addresses that they will listen on. Raises SettingsError when the port cannot be opened.
    """
    require_free_grpc_port(settings)
    with contextlib.ExitStack() as held:
        addresses: list[str] = []
        with _port_errors(settings.host, settings.port, "RESNEXT_PORT"):
            for family, (host, _) in _addresses(settings.host, settings.port):
                reserved = held.enter_context(_reserved(family, (host, settings.port)))
                addresses.append(str(reserved.getsockname()[0]))
                settings = settings.model_copy(update={"port": reserved.getsockname()[1]})
        opened(addresses)
        shared = held.enter_context(tempfile.TemporaryDirectory(prefix="resnext-processes-"))
        return asyncio.run(_keep(settings, shared))


async def _keep(settings: Settings, shared: str) -> int:
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    members = [
        Keeper(
            f"serving process {number}",
            [sys.executable, "-m", "app", MEMBER],
            environment_of_member(settings, shared),
            ended.is_set,
            FATAL,
            on_end=functools.partial(forget_process, folder=shared),
            stderr=log_descriptor(),  # a member's lines are JSON already
            grace_s=settings.drain_delay + settings.drain_timeout + GRACE_S,
        )
        for number in range(1, settings.processes + 1)
    ]
    async with contextlib.AsyncExitStack() as kept:
        for keeper in [training_worker(settings, ended.is_set), *members]:
            await kept.enter_async_context(keeper)
        waiting = [asyncio.create_task(ended.wait()), *(asyncio.create_task(member.gave_up()) for member in members)]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        status = 0 if ended.is_set() else BAD_SETTINGS
        ended.set()
    for task in waiting:
        task.cancel()
    return status


def _reserved(family: socket.AddressFamily, address: tuple[str, int]) -> socket.socket:
    """Binds a socket that never listens. It reserves the port, and picks one for port 0. Raises OSError."""
    socket.create_server(address, family=family).close()  # fails where anyone listens, sharing the port or not
    return _bound(family, address)


def _bound(family: socket.AddressFamily, address: tuple[str, int]) -> socket.socket:
    found = socket.socket(family, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if family == socket.AF_INET6:
        found.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # as create_server does: IPv4 has its own socket
    found.bind(address)
    return found


def environment_of_member(settings: Settings, shared: str) -> dict[str, str]:
    """Returns the variables of one process: its share of the cores, the port, the shared folder, and no worker."""
    share = str(max(1, usable_cores() // settings.processes))
    return settings.environment() | {
        "RESNEXT_PORT": str(settings.port),
        "RESNEXT_WORKER": "false",
        "RESNEXT_THREADS": share if settings.threads == "auto" else str(settings.threads),
        "RESNEXT_DECODE_THREADS": share if settings.decode_threads == "auto" else str(settings.decode_threads),
        FOLDER: shared,
    }


def _addresses(host: str, port: int) -> list[tuple[socket.AddressFamily, tuple[str, int]]]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return [(family, (str(address[0]), port)) for family, _, _, _, address in dict.fromkeys(found)]


@contextlib.contextmanager
def _port_errors(host: str, port: int, setting: str) -> Iterator[None]:
    """Turns the system's error about a port into one line for the operator."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            why = f"is in use by another program, or by this service in another terminal; set {setting} to another port"
        else:
            why = f"cannot be opened: {words_of(error)}"
        raise SettingsError(f"port {port} on {host} {why}") from None
