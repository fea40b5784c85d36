"""The API keys: how they are written down, whose is presented, and their file, which is read while the service runs."""

import contextlib
import hashlib
import hmac
import logging
import os
import re
import stat
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from app.api.access.scopes import SCOPES, Scope
from app.settings import Settings, SettingsError
from training.errors import words_of

MOST_KEYS = 256  # each is compared with what a request presents, 0.1 us each; a name is a label of a metric
MOST_BYTES = 64 * 1024
LOOK_S = 1.0
LATE_S = 10.0  # a file that has not answered for so long is reported

FORM = "a key itself, without a colon, or name:scope:sha256"
is_name = re.compile(r"[A-Za-z0-9._-]{1,32}").fullmatch
_is_digest = re.compile(r"[0-9A-Fa-f]{64}").fullmatch

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Key:
    """An API key, kept as its SHA-256 alone. `name` stands for it in logs and metrics."""

    name: str
    scope: Scope
    digest: bytes = field(repr=False)

    @classmethod
    def of(cls, name: str, scope: Scope, secret: str) -> "Key":
        """Returns the key whose text is `secret`."""
        return cls(name, scope, digest_of(secret.encode(errors="surrogateescape")))

    @property
    def line(self) -> str:
        """The key's line in a file of keys. The secret cannot be found from it."""
        return f"{self.name}:{self.scope}:{self.digest.hex()}"


def digest_of(secret: bytes) -> bytes:
    """Returns the SHA-256 of a key's text, 32 bytes."""
    return hashlib.sha256(secret).digest()


class Keys:
    """The keys of the service: those of the environment, and those of a file. False while there are none.

    The file is read again every LOOK_S while `followed` is open. When it cannot be read, or a line of it is wrong,
    `error` says so and the keys stay as they were.
    """

    def __init__(self, fixed: Sequence[str] = (), file: Path | None = None) -> None:
        """Reads the keys. Raises SettingsError, which names the line and never shows it."""
        self._fixed = _parse(enumerate(fixed, 1), "entry {} of RESNEXT_API_KEYS", "env")
        self._file = file
        self._seen = b""
        self._complaint: str | None = None
        self._looked = time.monotonic()
        self._keys = tuple(self._fixed)
        if file:
            self._seen = content_of(file)
            self._keys = self._all(self._seen, file)

    @classmethod
    def of(cls, settings: Settings) -> "Keys":
        """Reads the keys that the settings name. Raises SettingsError."""
        return cls([key.get_secret_value() for key in settings.api_keys], settings.api_keys_file)

    def __bool__(self) -> bool:
        return bool(self._keys)

    @property
    def error(self) -> str | None:
        """Why the file's newest content does not count; None when it does."""
        late = time.monotonic() - self._looked
        if self._file and late > LATE_S:
            return f"{self._file} has not been read for {late:.0f} s; the keys are those that it held then"
        return self._complaint

    def find(self, presented: bytes) -> Key | None:
        """Returns the key whose text a request has sent, or None.

        Every key is compared, each digest in constant time, so that the time of an answer reveals neither a key nor its
        length. An empty text is no key, even where a line has its digest.
        """
        digest = digest_of(presented)
        matches = [key for key in self._keys if hmac.compare_digest(digest, key.digest)]
        return matches[0] if matches and presented else None

    @contextlib.contextmanager
    def followed(self) -> Iterator[None]:
        """Follows the file, if there is one, in a thread of its own for the length of the block.

        The thread is a daemon and nobody waits for it: a file system that hangs holds up no request and no end.
        """
        ended = threading.Event()
        self._looked = time.monotonic()
        if self._file:
            threading.Thread(target=self._follow, args=(self._file, ended), name="api keys", daemon=True).start()
        try:
            yield
        finally:
            ended.set()

    def _follow(self, file: Path, ended: threading.Event) -> None:
        while not ended.wait(LOOK_S):
            self.look(file)
            self._looked = time.monotonic()

    def look(self, file: Path) -> None:
        """Reads the file again, whole: 64 KB at most, and some editors keep the time of the last change."""
        try:
            content = content_of(file)
            if content == self._seen and self._complaint is None:
                return
            self._keys = self._all(content, file)
        except Exception as error:  # whatever it is, the thread has to live
            self._complain(f"{error}; the keys stay as they were")
            return
        if content != self._seen or self._complaint:
            logger.info("the API keys of %s are %s", file, ", ".join(f"{k.name} ({k.scope})" for k in self._keys))
        self._seen, self._complaint = content, None

    def _complain(self, complaint: str) -> None:
        if complaint != self._complaint:
            logger.error("%s", complaint)
        self._complaint = complaint

    def _all(self, content: bytes, file: Path) -> tuple[Key, ...]:
        found = keys_in(content, file)
        if not found:  # else a file that was cut short would open the service to everybody
            raise SettingsError(f"{file} should have at least one API key, it has none")
        return _distinct([*self._fixed, *found])


def keys_in(content: bytes, file: Path) -> list[Key]:
    """Returns the keys in the content of a file. Raises SettingsError, which names the line and never shows it."""
    return _parse(_entries(content, file), f"line {{}} of {file}", "key")


def _parse(entries: Iterable[tuple[int, str]], place: str, nameless: str) -> list[Key]:
    """Reads numbered entries: NAME:SCOPE:SHA256, or a key itself, which has the scope admin and the name `nameless`1.

    `place` says where an entry stands, as "line {} of FILE". Raises SettingsError, which never shows an entry.
    """
    keys: list[Key] = []
    for number, entry in entries:
        parts = entry.split(":")
        if len(parts) == 1:
            keys.append(Key.of(f"{nameless}{len(keys) + 1}", "admin", entry))
            continue
        complaint = _complaint(parts)
        if complaint:
            raise SettingsError(f"{place.format(number)} should be {FORM}; {complaint}")
        scope = next(scope for scope in SCOPES if scope == parts[1])
        keys.append(Key(parts[0], scope, bytes.fromhex(parts[2])))
    return list(_distinct(keys))


def _complaint(parts: Sequence[str]) -> str | None:
    if len(parts) != 3:
        return f"it has {len(parts) - 1} colons"
    name, scope, digest = parts
    if not is_name(name):
        return "its name should have 1 to 32 of the characters A-Z a-z 0-9 . _ -"
    if scope not in SCOPES:
        return f"its scope should be {', '.join(SCOPES[:-1])} or {SCOPES[-1]}"
    if not _is_digest(digest):
        return f"its SHA-256 should be 64 hexadecimal digits, it has {len(digest)} characters"
    return None


def _distinct(keys: Sequence[Key]) -> tuple[Key, ...]:
    if len(keys) > MOST_KEYS:
        raise SettingsError(f"there should be at most {MOST_KEYS} API keys, there are {len(keys)}")
    for index, key in enumerate(keys):
        before = keys[:index]
        if any(key.name == other.name for other in before):
            raise SettingsError(f"two API keys are named {key.name}")
        if same := next((other for other in before if key.digest == other.digest), None):
            raise SettingsError(f"the API keys {same.name} and {key.name} are the same key")
    return tuple(keys)


def _entries(content: bytes, file: Path) -> Iterator[tuple[int, str]]:
    """Yields the number of the line and the text of each entry. A line may hold several, separated by commas."""
    try:
        text = content.decode("utf-8-sig")  # as Windows' editor writes it
    except UnicodeDecodeError:
        raise SettingsError(f"{file} should be text in UTF-8, it is not") from None
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("#"):
            continue
        for entry in filter(None, map(str.strip, line.split(","))):
            yield number, entry


def _open(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # else a pipe would keep this waiting for its writer


def content_of(file: Path) -> bytes:
    """Reads a file of keys. Raises SettingsError when it is none, or too large."""
    try:
        with open(file, "rb", opener=_open) as opened:
            if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
                raise SettingsError(f"{file} should be a file of API keys, it is none")
            content = opened.read(MOST_BYTES + 1)
    except OSError as error:
        raise SettingsError(f"the API keys in {file} cannot be read: {words_of(error)}") from None
    if len(content) > MOST_BYTES:
        raise SettingsError(f"{file} should have at most {MOST_BYTES} bytes, it has more")
    return content
