"""`python -m app`: the service, until SIGTERM; `python -m app tune` looks for its best settings."""

import argparse
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Sequence

import uvicorn

from app.errors import InferenceFailed
from app.execution.provider import ProviderError
from app.lifecycle.processes import BAD_SETTINGS, MEMBER, listening_sockets, serve_in_processes, sockets_of
from app.lifecycle.server import DrainingServer
from app.main import create_app
from app.model import ModelError
from app.observability.logs import configure
from app.services import services_of
from app.settings import Settings, SettingsError, read_settings, unknown_variables
from app.tuning.sweep import NothingToTune
from app.tuning.tune import add_arguments, tune
from training import lifeline
from training.errors import TrainingError

# longer than the minute that load balancers keep a connection: they should be the ones to close it
KEEP_ALIVE_S = 75

log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> None:
    """Exits with 2 and one line on settings that can not work, with 0 after a drain."""
    parser = argparse.ArgumentParser(
        prog="python -m app", description="Serves the active version. docs/settings.md says what may be set."
    )
    parser.add_argument(MEMBER, action="store_true", dest="member", help=argparse.SUPPRESS)
    commands = parser.add_subparsers(dest="command")
    help_line = "measure on this machine, with the active version, which settings are best"
    add_arguments(commands.add_parser("tune", help=help_line, description=help_line))
    options = parser.parse_args(arguments)
    if options.command == "tune":
        _tune(options)
    else:
        _serve(options.member)


def _tune(options: argparse.Namespace) -> None:
    try:
        tune(options)
    except (SettingsError, ProviderError, NothingToTune, ModelError, InferenceFailed, TrainingError) as error:
        print(f"python -m app tune: {error}", file=sys.stderr)  # noqa: T201  a command's own output
        sys.exit(BAD_SETTINGS)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


def _serve(member: bool) -> None:
    try:
        settings = read_settings()
        configure(settings)
        if not member:
            for complaint in unknown_variables(os.environ):
                log.warning("%s", complaint)
        if settings.processes > 1 and not member:
            sys.exit(serve_in_processes(settings))
        serve(settings, member)
    except (SettingsError, ProviderError) as error:
        print(f"resnext-service can not start: {error}", file=sys.stderr)  # noqa: T201  a command's own output
        sys.exit(BAD_SETTINGS)


def serve(settings: Settings, member: bool) -> None:
    """The service in this process, to the end of its drain; a `member` shares its port and ends with its starter."""
    sockets = sockets_of(settings) if member else listening_sockets(settings)  # before anything that takes its time
    app = create_app(settings)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,  # uvicorn's messages join ours
        log_level=settings.log_level,
        access_log=settings.log_level == "debug" and settings.log == "text",  # JSON has a line of ours
        server_header=False,
        proxy_headers=False,  # nothing here asks who the client is
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=settings.drain_timeout,
    )
    # uvicorn drains, then raises the signal again: a drained exit is no failure
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    if member:
        lifeline.follow(lambda: os.kill(os.getpid(), signal.SIGTERM))
    with contextlib.suppress(KeyboardInterrupt):
        DrainingServer(config, services_of(app).serving, settings.drain_delay).run(sockets)


if __name__ == "__main__":
    main()
