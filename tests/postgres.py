"""A PostgreSQL server for the tests, from Debian's package, on a port of its own."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.process import free_port

REQUIRED = "REQUIRE_POSTGRES"


def programs() -> Path:
    """Returns the folder of `initdb` and `pg_ctl`; without one, skips the test, or fails it under REQUIRE_POSTGRES."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        assert not os.environ.get(REQUIRED), f"{REQUIRED} is set and there is no PostgreSQL in /usr/lib/postgresql"
        pytest.skip("there is no PostgreSQL: apt-get install postgresql")
    return found[-1].parent


class Server:
    """A server that can be stopped and started again."""

    def __init__(self, folder: Path) -> None:
        self.bin, self.folder, self.port = programs(), folder, free_port()
        self.url = f"postgresql://resnext@127.0.0.1:{self.port}/jobs"
        self.user = "postgres" if os.geteuid() == 0 else None  # the server refuses to run as root
        if self.user:
            account = pwd.getpwnam(self.user)
            os.chown(folder, account.pw_uid, account.pw_gid)
        self._call("initdb", "--username=resnext", "--auth=trust", "--no-sync")

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off"
        self._call("pg_ctl", "-w", "-l", str(self.folder / "log"), "-o", options, "start")

    def stop(self) -> None:
        self._call("pg_ctl", "-m", "immediate", "stop")

    def _call(self, program: str, *arguments: str) -> None:
        command = [str(self.bin / program), "-D", str(self.folder / "data"), *arguments]
        done = subprocess.run(command, user=self.user, cwd=self.folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr + done.stdout


@contextmanager
def postgres() -> Iterator[Server]:
    """Starts a new, empty server, and removes it after the block."""
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))  # not in pytest's folder, which only this user may enter
    try:
        server = Server(folder)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder)
