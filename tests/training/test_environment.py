import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from training.environment import FORMATS, MAX_PIXELS, Limits
from training.jobs.settings import SharedSettings


def test_empty_means_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESNEXT_MAX_PIXELS", "")
    assert Limits().max_pixels == MAX_PIXELS


def test_a_child_has_the_limit_wherever_it_was_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "resnext_max_pixels").write_text("12345")
    (tmp_path / "resnext_database").write_text("postgresql://jobs:word@host/name")
    monkeypatch.setenv("RESNEXT_SECRETS", str(tmp_path))
    environment = SharedSettings().environment_of_child()
    assert not any("word" in value for value in environment.values())  # a child that decodes needs no database
    code = "from training.environment import Limits; print(Limits().max_pixels)"
    child = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert child.stdout == "12345\n"


def test_formats_are_named_in_any_case_and_a_child_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Limits().formats == ",".join(FORMATS)
    monkeypatch.setenv("RESNEXT_FORMATS", " jpeg, Qoi\nPNG,")
    limits = Limits()
    assert limits.formats == "JPEG,QOI,PNG"
    assert limits.environment_of_child()["RESNEXT_FORMATS"] == "JPEG,QOI,PNG"


@pytest.mark.parametrize("value", ["JPG", "JPEG;PNG", ",", "EPS"])
def test_an_unknown_format_is_an_error_that_lists_the_known(value: str) -> None:
    with pytest.raises(ValidationError, match=r"should be of JPEG, PNG, .*QOI"):
        Limits(formats=value)
