import os
import threading
from pathlib import Path

import pytest

from app.api.access.keys import MOST_BYTES, MOST_KEYS, Key, Keys
from app.api.access.scopes import SCOPES, Scope
from app.settings import SettingsError
from tests.process import until

EMPTY = Key.of("x", "admin", "").line


def line(name: str, scope: Scope = "predict") -> str:
    return Key.of(name, scope, f"secret of {name}").line


def found(keys: Keys, secret: str) -> tuple[str, Scope] | None:
    key = keys.find(secret.encode())
    return (key.name, key.scope) if key else None


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys"


def test_a_file_has_keys_with_scopes_plain_ones_comments_and_blank_lines(file: Path) -> None:
    lines = ["\ufeff# who is who: shop, and so on", "", line("shop"), f"  {line('ci', 'train')}", "plain, second", "x"]
    file.write_text("\r\n".join(lines))
    keys = Keys(["mine"], file)
    assert found(keys, "secret of shop") == ("shop", "predict")
    assert found(keys, "secret of ci") == ("ci", "train")
    assert found(keys, "mine") == ("env1", "admin")
    assert [found(keys, secret) for secret in ("plain", "second", "x")] == [(f"key{n}", "admin") for n in (3, 4, 5)]
    for unknown in ("", "secret of shop ", "shop", line("shop"), "# who is who: shop", "a" * 100_000):
        assert found(keys, unknown) is None, unknown


def test_a_key_of_the_environment_may_be_any_bytes() -> None:
    assert Keys([os.fsdecode(b"\xff\xfe")]).find(b"\xff\xfe")


def test_the_digest_of_nothing_lets_nobody_in(file: Path) -> None:
    file.write_text(EMPTY)
    assert found(Keys(file=file), "") is None


HEX = "0" * 64


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a:root:" + HEX, "line 1 of FILE should be .*; its scope should be predict, train or admin"),
        (f"\n# b\nb:admin:{HEX[1:]}", "line 3 of FILE should be .*; its SHA-256 should be 64 .* it has 63 characters"),
        (f"b:admin:{HEX[1:]}g", "its SHA-256 should be 64 hexadecimal digits"),
        (f"a b:admin:{HEX}", "its name should have 1 to 32 of the characters"),
        (f'"}}:admin:{HEX}', "its name should have 1 to 32 of the characters"),
        (f":admin:{HEX}", "its name should have 1 to 32 of the characters"),
        (f"{'n' * 33}:admin:{HEX}", "its name should have 1 to 32 of the characters"),
        ("a-password:of-old", "should be a key itself, without a colon, or name:scope:sha256; it has 1 colons"),
        (f"{line('a')}\n{Key.of('a', 'train', 'other').line}", "two API keys are named a"),
        (f"{line('a')}\n{line('a').replace('a:', 'b:', 1)}", "the API keys a and b are the same key"),
        ("# nobody yet\n", "FILE should have at least one API key, it has none"),
        ("x" * (MOST_BYTES + 1), f"FILE should have at most {MOST_BYTES} bytes"),
        ("\n".join(map(str, range(MOST_KEYS + 1))), f"at most {MOST_KEYS} API keys, there are {MOST_KEYS + 1}"),
    ],
)
def test_what_is_wrong_stops_the_start_without_showing_it(file: Path, text: str, expected: str) -> None:
    file.write_text(text)
    with pytest.raises(SettingsError, match=expected.replace("FILE", str(file))) as caught:
        Keys(file=file)
    said = str(caught.value)
    assert "\n" not in said
    assert not any(part in said for part in (HEX[1:], "password", "of-old"))


def test_a_file_that_is_none_stops_the_start(file: Path) -> None:
    with pytest.raises(SettingsError, match=f"the API keys in {file} cannot be read: No such file"):
        Keys(file=file)
    with pytest.raises(SettingsError, match=r"cannot be read: Is a directory"):
        Keys(file=file.parent)
    os.mkfifo(file)  # nobody writes to it
    with pytest.raises(SettingsError, match="should be a file of API keys, it is none"):
        Keys(file=file)
    file.unlink()
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match="should be text in UTF-8"):
        Keys(file=file)


def test_keys_are_shown_nowhere() -> None:
    keys = Keys(["a secret"])
    key = keys.find(b"a secret")
    assert key
    assert key.digest.hex() not in repr(key)
    assert "secret" not in repr(key) + repr(keys)


def test_a_file_that_changes_is_read_again(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    file.write_text(line("old"))
    keys = Keys(file=file)
    with keys.followed():
        times = file.stat()
        file.write_text(line("new"))
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))  # as `cp -p` does; the size is the same, too
        until(lambda: found(keys, "secret of new") is not None)
        assert found(keys, "secret of old") is None
    until(lambda: not any(thread.name == "api keys" for thread in threading.enumerate()))
    assert f"the API keys of {file} are new (predict)" in caplog.text


@pytest.mark.parametrize("damage", ["", "# all\n", f"{line('new')}\nb:predict:12", "\0" * (MOST_BYTES + 1), None])
def test_a_damaged_file_is_reported_once_and_the_keys_stay(
    file: Path, caplog: pytest.LogCaptureFixture, damage: str | None
) -> None:
    caplog.set_level("INFO")
    file.write_text(line("old"))
    keys = Keys(file=file)
    if damage is None:
        file.unlink()
    else:
        file.write_text(damage)
    for _ in range(3):
        keys.look(file)
    assert found(keys, "secret of old") == ("old", "predict")
    assert found(keys, "secret of new") is None
    assert keys.error
    assert keys.error.endswith("; the keys stay as they were")
    assert [record.message for record in caplog.records] == [keys.error]
    file.write_text(line("old"))
    keys.look(file)
    assert keys.error is None
    assert caplog.records[-1].levelname == "INFO"


def test_a_file_that_does_not_answer_is_reported(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a network file system whose server is gone."""
    file.write_text(line("old"))
    keys = Keys(file=file)
    assert keys.error is None
    monkeypatch.setattr("app.api.access.keys.LATE_S", -1.0)
    assert keys.error == f"{file} has not been read for 0 s; the keys are those that it held then"
    assert Keys(["a"]).error is None


def test_scopes_are_ordered() -> None:
    assert SCOPES == ("predict", "train", "admin")
