"""The images that a version was trained, chosen and tested on, by their bytes: they are recognized wherever they lie.

`seen.json` in a version's folder has the beginnings of the files' SHA-256, by split.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from training.datasets.layout import SPLITS, Sample, classes_of, samples_of
from training.errors import ContractError
from training.system.files import sha256

SEEN_FILE = "seen.json"
DIGITS = 16  # of 64: enough to distinguish a million images, in a quarter of the space


def write_seen(folder: Path, samples: Sequence[Sample]) -> None:
    """Writes the images of a training for `splits_of`."""
    seen = {split: sorted({s.sha256[:DIGITS] for s in samples if s.split == split}) for split in SPLITS}
    (folder / SEEN_FILE).write_text(json.dumps(seen))


def splits_of(version: Path, folder: Path, labels: list[str], names: Sequence[str]) -> list[str | None] | None:
    """Returns the split that each image of `read_folder` was in when the version was trained, None for a new image.

    Returns None in place of the list where the version has no `seen.json`, as from an earlier release.
    """
    try:
        seen = json.loads((version / SEEN_FILE).read_bytes())
    except FileNotFoundError:
        return None
    split_by_hash = {digits: split for split in SPLITS for digits in seen[split]}
    paths = {sample.name: sample.path for sample in samples_of(classes_of(folder, folder), labels)}
    return [split_by_hash.get(sha256(paths[name])[:DIGITS]) for name in names]


def rows_of(split: str, splits: Sequence[str | None] | None, version: int) -> list[int]:
    """Returns the rows of one split's images. Raises ContractError where there are none."""
    if splits is None:
        raise ContractError(
            f"version {version} does not know which images were in its {split}: measure without --split"
        )
    rows = [row for row, of in enumerate(splits) if of == split]
    if not rows:
        raise ContractError(f"none of these images was in the {split} of version {version}")
    return rows


def training_note(splits: Sequence[str | None] | None) -> str | None:
    """Returns a line on how many of the images were trained on, None where none was or nobody knows."""
    count = sum(split == "train" for split in splits or ())
    if not splits or not count:
        return None
    held_out = sum(split == "test" for split in splits)
    line = f"{count:,} of these {len(splits):,} images were trained on, so right answers on them say little"
    return line + (f"; --split test measures on the {held_out:,} that were not" if held_out else "")
