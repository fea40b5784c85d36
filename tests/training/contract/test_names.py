import unicodedata

import pytest

from training.contract.names import usable_name


@pytest.mark.parametrize(
    "name", ["photos", "resnext50", "My Photos", "照片", "كلاب", "a.b_c-d", "Σ+(1)", "x" * 64, "100%"]
)
def test_names_of_any_script_can_be_used(name: str) -> None:
    assert usable_name(name) == name


def test_a_name_is_kept_in_one_form() -> None:
    assert usable_name(unicodedata.normalize("NFD", "žluť")) == unicodedata.normalize("NFC", "žluť")


@pytest.mark.parametrize(
    "name",
    [
        *(
            "",
            " ",
            "a ",
            " a",
            ".",
            "..",
            ".a",
            "-a",
            "a/b",
            "a\\b",
            "a@1",
            "weights:a",
            "a\nb",
            "a\0",
            "a\x7f",
            "a\u2028b",
        ),
        *("a\u202eb", "a\u200bb", "\ud800", "CURRENT", "lost+found", "$Recycle.Bin", "x" * 65, "😀" * 64),
    ],
)
def test_names_that_would_do_harm_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="a name should have 1 to 64 characters of any script"):
        usable_name(name)
