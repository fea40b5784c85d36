"""Deals images to splits: stratified, seeded, and never the same image in two splits."""

import hashlib
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace

from training.datasets.layout import SPLITS, DatasetError, Sample


def divide(
    samples: list[Sample],
    labels: list[str],
    fractions: dict[str, float],
    seed: int,
    explain: Callable[[int], str],
) -> list[Sample]:
    """Deals each class's distinct images to the splits that `fractions` names, and the rest to train.

    Copies (the same SHA-256) follow their original. The order comes from a hash of seed and name: no release can change
    it, as it could a random generator's sequence, and an image that joins the dataset moves few others. Raises
    DatasetError with the reasons that `explain` gives for the label.
    """
    copies: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        copies[sample.sha256].append(sample)
    originals: dict[int, list[Sample]] = defaultdict(list)
    for group in copies.values():
        originals[group[0].label].append(group[0])  # an image under two labels is dealt with the first
    split_of: dict[str, str] = {}
    for label, name in enumerate(labels):
        images = sorted(originals[label], key=lambda s: hashlib.sha256(f"{seed}\0{s.name}".encode()).digest())
        if len(images) <= len(fractions):
            needed = [split for split in SPLITS if split == "train" or split in fractions]
            raise DatasetError(
                f"class {name!r} should have at least {len(needed)} different readable images, one each for "
                f"{', '.join(needed[:-1])} and {needed[-1]}; it has {len(images)} in {explain(label)}"
            )
        dealt = _dealt(len(images), fractions)
        for image, split in zip(images, dealt, strict=True):
            split_of[image.sha256] = split
    return [replace(sample, split=split_of[sample.sha256]) for sample in samples]


def _dealt(count: int, fractions: dict[str, float]) -> list[str]:
    """Returns the split of each of `count` images: at least one in each split, train included."""
    dealt: list[str] = []
    for left, (split, fraction) in zip(range(len(fractions), 0, -1), fractions.items(), strict=True):
        dealt += [split] * min(max(1, round(count * fraction)), count - len(dealt) - left)
    return dealt + ["train"] * (count - len(dealt))
