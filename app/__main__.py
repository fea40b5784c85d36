"""`python -m app`: the service, until SIGTERM."""

import contextlib
import logging
import os
import signal
import sys

import uvicorn

from app.main import create_app
from app.processes import BAD_SETTINGS, MEMBER, serve_in_processes, sockets_of
from app.provider import ProviderError
from app.server import DrainingServer
from app.services import services_of
from app.settings import Settings, SettingsError, read_settings
from training import lifeline

# longer than the minute that load balancers keep a connection: they should be the ones to close it
KEEP_ALIVE_S = 75


def main() -> None:
    """Exits with 2 and one line on settings that can not work, with 0 after a drain."""
    member = sys.argv[1:] == [MEMBER]
    try:
        settings = read_settings()
        logging.basicConfig(level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        logging.getLogger("PIL").setLevel(logging.INFO)  # it logs every chunk of a PNG
        if settings.processes > 1 and not member:
            sys.exit(serve_in_processes(settings))
        serve(settings, member)
    except (SettingsError, ProviderError) as error:
        print(f"resnext-service can not start: {error}", file=sys.stderr)  # noqa: T201  a command's own output
        sys.exit(BAD_SETTINGS)


def serve(settings: Settings, member: bool) -> None:
    """The service in this process, to the end of its drain; a `member` shares its port and ends with its starter."""
    app = create_app(settings)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,  # uvicorn's messages join ours
        log_level=settings.log_level,
        access_log=settings.log_level == "debug",
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
        DrainingServer(config, services_of(app).serving, settings.drain_delay).run(
            sockets_of(settings) if member else None
        )


if __name__ == "__main__":
    main()
