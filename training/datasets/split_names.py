"""The names that people give to the folders of splits."""

import re
import unicodedata

NAMES = {
    "train": ("train", "training", "trn"),
    "val": ("val", "valid", "validation", "validate", "validating", "dev", "development", "eval", "evaluation"),
    "test": ("test", "tests", "testing", "tst", "holdout"),
}
FILLERS = ("set", "sets", "split", "data", "dataset", "images", "image", "imgs", "img", "pictures", "photos", "samples")

_filler = f"(?:{'|'.join(FILLERS)})*"
_split = "|".join(f"(?P<{split}>{'|'.join(names)})" for split, names in NAMES.items())
_spelled = re.compile(f"{_filler}(?:{_split}){_filler}")


def split_of(name: str) -> str | None:
    """The split that a folder's name stands for: train, val, test, or None.

    Only letters count, in any case: `TRAIN`, `training_set`, `Train Images`, `train2017` and `01-train` are train.
    """
    letters = "".join(char for char in unicodedata.normalize("NFKC", name).casefold() if char.isalpha())
    found = _spelled.fullmatch(letters)
    return found.lastgroup if found else None
