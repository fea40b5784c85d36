"""`python -m app`: the service in one process, until SIGTERM."""

import contextlib
import logging
import signal
import sys

import uvicorn

from app.main import create_app
from app.provider import ProviderError
from app.server import DrainingServer
from app.services import services_of
from app.settings import SettingsError, read_settings

BAD_SETTINGS = 2
# longer than the minute that load balancers keep a connection: they should be the ones to close it
KEEP_ALIVE_S = 75


def main() -> None:
    """Exits with 2 and one line on settings that can not work, with 0 after a drain."""
    try:
        settings = read_settings()
        logging.basicConfig(level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        logging.getLogger("PIL").setLevel(logging.INFO)  # it logs every chunk of a PNG
        app = create_app(settings)
    except (SettingsError, ProviderError) as error:
        print(f"resnext-service can not start: {error}", file=sys.stderr)  # noqa: T201  a command's own output
        sys.exit(BAD_SETTINGS)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,  # uvicorn's messages join ours
        log_level=settings.log_level,
        access_log=settings.log_level == "debug",
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=settings.drain_timeout,
    )
    # uvicorn drains, then raises the signal again: a drained exit is no failure
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with contextlib.suppress(KeyboardInterrupt):
        DrainingServer(config, services_of(app).serving, settings.drain_delay).run()


if __name__ == "__main__":
    main()
