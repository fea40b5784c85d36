"""The command line: `python -m app`, also `resnext serve`, serves until SIGTERM; `tune` and `keys` are commands."""

from training.system.interrupt import INTERRUPT

if __name__ == "__main__":
    INTERRUPT.watch()  # the imports below take a second, during which Ctrl-C may come

import argparse
import contextlib
import functools
import logging
import os
import signal
import sys
from collections.abc import Sequence

import uvicorn

from app.api.access import command as keys
from app.api.access import reach
from app.api.access.keys import Keys
from app.api.door.connection import connections_of
from app.api.door.door import Door, most_connections
from app.errors import InferenceFailed
from app.execution.package import ModelError
from app.execution.session import ProviderError
from app.main import create_app
from app.observability.logs import configure
from app.processes.ending import AFTER_DRAIN_S, HUNG, Ending
from app.processes.group import BAD_SETTINGS, MEMBER, listening_sockets, serve_in_processes, sockets_of
from app.processes.keeper import GRACE_S
from app.processes.server import DrainingServer
from app.services import services_of
from app.settings import Settings, SettingsError, read_settings, unknown_variables
from app.tuning.sweep import NothingToTune
from app.tuning.tune import add_arguments, tune
from training.errors import TrainingError
from training.system import lifeline

# longer than the minute for which load balancers keep a connection, so that they are the ones to close it
KEEP_ALIVE_S = 75

logger = logging.getLogger(__name__)


def main(arguments: Sequence[str]) -> int:
    """Runs the service, or a command.

    Returns the exit status: 0 after a drain, 2 for settings that cannot work, 4 when something hung.
    """
    parser = argparse.ArgumentParser(
        prog="resnext", description="Serves the active version. docs/settings.md lists the settings."
    )
    parser.add_argument(MEMBER, action="store_true", dest="member", help=argparse.SUPPRESS)
    commands = parser.add_subparsers(dest="command")
    help_line = "find the best settings for this machine by measuring the active version"
    add_arguments(commands.add_parser("tune", prog="resnext tune", help=help_line, description=help_line))
    help_line = "make API keys"
    keys.add_arguments(commands.add_parser("keys", prog="resnext keys", help=help_line, description=help_line))
    options = parser.parse_args(arguments)
    if options.command:
        return _command(options)
    return _serve(options.member)


def _command(options: argparse.Namespace) -> int:
    try:
        (tune if options.command == "tune" else keys.run)(options)
    except (SettingsError, ProviderError, NothingToTune, ModelError, InferenceFailed, TrainingError) as error:
        print(f"resnext {options.command}: {error}", file=sys.stderr)  # noqa: T201  a command's own output
        return BAD_SETTINGS
    return 0


def _serve(member: bool) -> int:
    try:
        settings = read_settings()
        configure(settings)
        if not member:
            for complaint in unknown_variables(os.environ):
                logger.warning("%s", complaint)
        if settings.processes > 1 and not member:
            INTERRUPT.leave()
            return serve_in_processes(settings, functools.partial(_warn, settings, bool(Keys.of(settings))))
        return serve(settings, member)
    except (SettingsError, ProviderError) as error:
        print(f"resnext-service cannot start: {error}", file=sys.stderr)  # noqa: T201  a command's own output
        return BAD_SETTINGS


def _warn(settings: Settings, keys: bool, addresses: Sequence[str]) -> None:
    """Warns in one line when there are no keys and others can reach the addresses that the service listens on."""
    if not keys and (line := reach.warning(addresses, settings.insecure)):
        logger.warning("%s", line)


def serve(settings: Settings, member: bool) -> int:
    """Serves in this process until it is drained. A `member` shares its port and ends when its starter ends.

    Returns the exit status: 0, or HUNG when it ended since something hung.
    """
    sockets = sockets_of(settings) if member else listening_sockets(settings)  # first, since the rest takes seconds
    addresses = [str(each.getsockname()[0]) for each in sockets]
    app = create_app(settings, addresses)
    if not member:
        _warn(settings, bool(Keys.of(settings)), addresses)
    door = Door(most_connections())
    config = uvicorn.Config(
        app,
        http=connections_of(door),
        ws="none",
        host=settings.host,
        port=settings.port,
        log_config=None,  # uvicorn logs through our handlers
        log_level=settings.log_level,
        access_log=settings.log_level == "debug" and settings.log == "text",  # with JSON, RequestLog writes the line
        server_header=False,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=[str(network) for network in settings.trusted_proxies],
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=settings.drain_timeout,
    )
    services = services_of(app)
    # the worker, which gets GRACE_S, may take longer than the requests
    drain_timeout = max(settings.drain_timeout, GRACE_S if settings.worker else 0)
    seconds = settings.drain_delay + drain_timeout + AFTER_DRAIN_S
    ending = Ending(services.drain, services.watch, seconds, services.serving.set_back)
    # uvicorn drains and then raises the signal again; an exit after a drain is no failure
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(HUNG if ending.hung else 0))
    if member:
        lifeline.follow(lambda: os.kill(os.getpid(), signal.SIGTERM))
    INTERRUPT.leave()  # from here on Ctrl-C drains
    ending.start()

    def check(now: float) -> None:
        door.check(now)
        services.uploads.trim()

    with contextlib.suppress(KeyboardInterrupt):
        DrainingServer(config, services.drain, settings.drain_delay, check).run(sockets)
    return HUNG if ending.hung else 0


if __name__ == "__main__":
    INTERRUPT.run(main)
