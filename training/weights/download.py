"""One file from a server: a transfer that broke off goes on where it was, and nothing takes longer than it may.

The HTTP client is huggingface_hub's, with its proxies, certificates and HF_HUB_OFFLINE. Its own download begins again
with each call, tries a silent server for six minutes, and takes up to 50 GB.
"""

import contextlib
import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fcntl import LOCK_EX
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING

from training.errors import StorageFull, StorageUnavailable, TrainingError, storage_error
from training.system.files import sha256
from training.system.locks import try_lock
from training.system.staging import STAGING_PREFIX, remove_stale_staging
from training.system.threads import within
from training.weights.tensors import MAX_FILE_BYTES

if TYPE_CHECKING:
    from httpx2 import Response

FOLDER = "the weights folder"
REFUSALS = {
    401: "it asks for a key, or does not take the one that it got",
    403: "it refuses",
    404: "there is no such file",
    410: "the file is gone",
}
_LENGTH = re.compile(r"\d{1,18}", re.ASCII)
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18})", re.ASCII)

Progress = Callable[[int, int | None], None]  # bytes that are here, and bytes in all where that is known


class DownloadError(TrainingError):
    """A file that did not come. The message says why."""


class TransferBroken(DownloadError):
    """A server that cannot be reached, or a transfer that broke off. Another try may go on."""


@dataclass(frozen=True)
class Patience:
    """The longest that each step may take, in seconds, and how often a transfer is tried."""

    connect_s: float = 10
    answer_s: float = 30  # until the answer begins, with all redirects
    silence_s: float = 30  # between two pieces of the file
    window_s: float = 60  # in which at least `window_bytes` come
    window_bytes: int = 100_000
    tries: int = 5
    pause_s: float = 1  # between two tries


PATIENCE = Patience()


@dataclass(frozen=True)
class Remote:
    """A file on a server, and what is known of it before it is here."""

    address: str
    sha256: str | None = None
    size: int | None = None
    etag: str | None = None  # a strong one, in quotes: only the same bytes have it
    revision: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def shown(self) -> str:
        """The address without a password, and without what follows a question mark, which may be a key."""
        return without_secrets(self.address)

    @property
    def identity(self) -> str | None:
        """A text that only the same bytes share; None where none is known."""
        return self.sha256 or (f"{self.address} {self.etag}" if self.etag else None)


def without_secrets(address: str) -> str:
    """Returns an address without user, password, query and fragment."""
    return re.sub(r"(?<=://)[^/]*@", "", re.split(r"[?#]", address, maxsplit=1)[0])


@contextlib.contextmanager
def downloaded(remote: Remote, folder: Path, progress: Progress, patience: Patience = PATIENCE) -> Iterator[Path]:
    """Yields the file, whole, on the file system of `folder`. Removes it at the end of the block, but for Ctrl-C.

    A transfer that broke off is kept in a hidden folder for a day, where its rest is known to belong to it. Raises
    DownloadError when the file does not come or is another one, StorageUnavailable when it cannot be written.
    """
    digest = hashlib.sha256((remote.identity or remote.address).encode()).hexdigest()
    partial = folder / f"{STAGING_PREFIX}pull-{digest[:16]}"
    try:
        partial.mkdir(parents=True, exist_ok=True)
        os.utime(partial)  # its day begins again
        remove_stale_staging(folder)
    except OSError as error:
        raise storage_error(FOLDER, error) from error
    with _alone(partial, remote):
        path = partial / "tensors"
        try:
            _fetch(remote, path, progress, patience)
        finally:
            if not _size(path):
                shutil.rmtree(partial, ignore_errors=True)
        try:
            _check(remote, path)
            yield path
        except KeyboardInterrupt:  # a person who stops may go on later
            raise
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        shutil.rmtree(partial, ignore_errors=True)


@contextlib.contextmanager
def http_errors(shown: str, patience: Patience, silence_s: float) -> Iterator[None]:
    """Raises what goes wrong on the way to a server as TransferBroken or DownloadError. `shown` is its address."""
    import httpx2
    from huggingface_hub.errors import OfflineModeIsEnabled

    try:
        yield
    except OfflineModeIsEnabled:
        raise DownloadError(f"{shown} is not asked for: HF_HUB_OFFLINE is set") from None
    except httpx2.ConnectTimeout:
        raise TransferBroken(f"{shown} cannot be reached: no connection in {patience.connect_s:g} s") from None
    except httpx2.TimeoutException:
        raise TransferBroken(f"{shown} fell silent: nothing came for {silence_s:g} s") from None
    except TimeoutError:
        raise TransferBroken(f"{shown} did not answer within {patience.answer_s:g} s") from None
    except httpx2.ConnectError as error:
        raise TransferBroken(f"{shown} cannot be reached: {_words(error)}") from error
    except httpx2.TransportError as error:
        raise TransferBroken(f"{shown}: the connection broke off: {_words(error)}") from error
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise DownloadError(f"{shown} cannot be downloaded: {_words(error)}") from error


def require_success(status: int, shown: str) -> None:
    """Raises DownloadError for the status of an answer without the file, TransferBroken when it may come later."""
    if status == 429 or status >= 500:
        raise TransferBroken(f"{shown} answers {status}: try again later")
    if status >= 400:
        raise DownloadError(f"{shown} answers {status}: {REFUSALS.get(status, 'it refuses')}")


def length_of(response: "Response") -> int | None:
    """Returns the length of an answer's body in bytes, None where the server does not say it."""
    text = response.headers.get("Content-Length", "")
    return int(text) if _LENGTH.fullmatch(text) else None


@contextlib.contextmanager
def _alone(partial: Path, remote: Remote) -> Iterator[None]:
    with (partial / "lock").open("w") as file:
        if not try_lock(file.fileno(), LOCK_EX):
            raise DownloadError(f"{remote.shown} is being downloaded by another process")
        yield


def _fetch(remote: Remote, path: Path, progress: Progress, patience: Patience) -> None:
    """Downloads until the file is whole, in a few tries. A try that left nothing to go on from is the last."""
    for remaining in reversed(range(patience.tries)):
        try:
            return _transfer(remote, path, progress, patience)
        except TransferBroken as error:
            kept = _size(path) if remote.identity else 0
            if not kept:
                path.unlink(missing_ok=True)
                raise
            if not remaining:
                raise TransferBroken(
                    f"{error}. The first {kept} bytes are kept for a day: pull again to go on"
                ) from error
        except (DownloadError, StorageUnavailable):
            path.unlink(missing_ok=True)
            raise
        time.sleep(patience.pause_s)
    return None


def _transfer(remote: Remote, path: Path, progress: Progress, patience: Patience) -> None:
    """Downloads what is not here yet."""
    start = _size(path) if remote.identity else 0
    if start and start == remote.size:
        return
    with http_errors(remote.shown, patience, patience.silence_s), _answer(remote, start, patience) as response:
        require_success(response.status_code, remote.shown)
        if remote.address.lower().startswith("https:") and response.url.scheme != "https":
            raise DownloadError(f"{remote.shown} leads to an address without encryption: {_shown(response)}")
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise DownloadError(f"{remote.shown} should come as it is, it comes packed")
        start, total = _range(response, start)
        total = total or remote.size
        _require_room(remote, path, start, total)
        received, pace = start, _Pace(remote, path.parent, patience)
        with path.open("ab" if start else "wb", buffering=0) as file:
            progress(received, total)
            for chunk in response.iter_raw():
                received += len(chunk)
                _require_size(remote, received)
                pace.check(received - start)
                _append(file, chunk)
                progress(received, total)


@contextlib.contextmanager
def _answer(remote: Remote, start: int, patience: Patience) -> Iterator["Response"]:
    """Yields the answer before its body has come."""
    import httpx2
    from huggingface_hub import get_session

    headers = {**remote.headers, "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
        if remote.etag:
            headers["If-Range"] = remote.etag  # whole, if it is another file by now
    client = get_session()
    timeout = httpx2.Timeout(patience.silence_s, connect=patience.connect_s)
    request = client.build_request("GET", remote.address, headers=headers, timeout=timeout)
    response = within(patience.answer_s, lambda: client.send(request, stream=True))
    with contextlib.closing(response):
        yield response


def _range(response: "Response", asked: int) -> tuple[int, int | None]:
    """Returns where the answer begins in the file, and the file's length where the server says it."""
    if response.status_code == 206:
        found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if not found or int(found[1]) != asked:
            raise DownloadError(
                f"{_shown(response)} should answer with the rest of the file, it answers with another part"
            )
        return asked, int(found[2])
    return 0, length_of(response)


def _require_room(remote: Remote, path: Path, start: int, total: int | None) -> None:
    """Raises DownloadError for a file that is too large, StorageFull where it does not fit on the disk."""
    _require_size(remote, total or 0)
    needed, free = (total or 0) - start, shutil.disk_usage(path.parent).free
    if needed > free:
        raise StorageFull(f"the disk of {FOLDER} should have {needed} bytes free for {remote.shown}, it has {free}")


def _require_size(remote: Remote, size: int) -> None:
    most = min(remote.size or MAX_FILE_BYTES, MAX_FILE_BYTES)
    if size > most:
        raise DownloadError(f"{remote.shown} should have at most {most} bytes, it has more")


class _Pace:
    """A guard against a server that sends next to nothing, but never falls silent."""

    def __init__(self, remote: Remote, partial: Path, patience: Patience) -> None:
        self.remote, self.partial, self.patience = remote, partial, patience
        self.since, self.already = time.monotonic(), 0

    def check(self, received: int) -> None:
        """Raises TransferBroken when the window is over and too little came in it."""
        if (now := time.monotonic()) - self.since < self.patience.window_s:
            return
        if received - self.already < self.patience.window_bytes:
            raise TransferBroken(
                f"{self.remote.shown} is too slow: {received - self.already} bytes in {self.patience.window_s:g} s"
            )
        self.since, self.already = now, received
        os.utime(self.partial)  # it is not stale, however long this takes


def _append(file: FileIO, chunk: bytes) -> None:
    """Writes all of the chunk. Raises StorageUnavailable."""
    rest = memoryview(chunk)
    try:
        while rest:
            rest = rest[file.write(rest) :]
    except OSError as error:
        raise storage_error(FOLDER, error) from error


def _check(remote: Remote, path: Path) -> None:
    """Raises DownloadError when the file is not what the server said it would be."""
    if remote.size is not None and (size := path.stat().st_size) != remote.size:
        raise DownloadError(f"{remote.shown} should have {remote.size} bytes, {size} came")
    if remote.sha256 and (actual := sha256(path)) != remote.sha256:
        raise DownloadError(
            f"{remote.shown} should have SHA-256 {remote.sha256}, what came has {actual}: it was changed on its way"
        )


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _shown(response: "Response") -> str:
    return without_secrets(str(response.url))


def _words(error: Exception) -> str:
    """Returns what a client's error says, without the system's number."""
    return re.sub(r"^\[Errno -?\d+\] ", "", str(error)) or type(error).__name__
