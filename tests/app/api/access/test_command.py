from pathlib import Path

import pytest

from app.__main__ import main
from app.api.access.keys import Keys


def test_a_new_key_is_printed_once_with_its_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["keys", "new", "shop", "--scope", "train"]) == 0
    secret, line = capsys.readouterr().out.splitlines()
    file = tmp_path / "keys"
    file.write_text(line)
    key = Keys(file=file).find(secret.encode())
    assert key
    assert (key.name, key.scope) == ("shop", "train")
    assert secret not in line
    assert len(secret) > 40


def test_a_line_is_added_to_a_file_whose_mode_stays(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# ours\nplain")
    file.chmod(0o600)
    for name in ("shop", "ci"):
        assert main(["keys", "new", name, "--file", str(file)]) == 0
    shop, ci = capsys.readouterr().out.splitlines()
    keys = Keys(file=file)
    assert [key and (key.name, key.scope) for key in map(keys.find, (shop.encode(), ci.encode(), b"plain"))] == [
        ("shop", "predict"),
        ("ci", "predict"),
        ("key1", "admin"),
    ]
    assert file.stat().st_mode & 0o777 == 0o600
    before = file.read_bytes()
    assert main(["keys", "new", "shop", "--file", str(file)]) == 2
    assert capsys.readouterr().err.startswith(f"resnext keys: {file} has a key named shop")
    assert file.read_bytes() == before


def test_a_file_that_cannot_be_written_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["keys", "new", "a", "--file", str(tmp_path / "nowhere" / "keys")]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.endswith("cannot be written: No such file or directory\n")


@pytest.mark.parametrize("name", ["", "a b", "a:b", "x" * 33, "a\nb", "ü"])
def test_a_name_that_no_log_should_have_is_refused(name: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["keys", "new", name])
    assert ended.value.code == 2
