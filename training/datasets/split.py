"""The split of a folder that has none: stratified, seeded, and no image on two sides of it."""

import hashlib
from collections import defaultdict
from dataclasses import replace

from training.datasets.layout import SPLITS, DatasetError, Sample


def divide(
    samples: list[Sample], labels: list[str], val_fraction: float, test_fraction: float, seed: int
) -> list[Sample]:
    """Deals each class's distinct images to test, val and train; copies (the same SHA-256) follow their original.

    Their order is that of a hash of seed and name: no random generator whose sequence a release could change, and an
    image that joins the dataset moves few others. Raises DatasetError.
    """
    copies: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        copies[sample.sha256].append(sample)
    originals: dict[int, list[Sample]] = defaultdict(list)
    for group in copies.values():
        originals[group[0].label].append(group[0])  # one that lies under two labels is dealt with the first
    split_of: dict[str, str] = {}
    for label, name in enumerate(labels):
        images = sorted(originals[label], key=lambda s: hashlib.sha256(f"{seed}\0{s.name}".encode()).digest())
        count = len(images)
        if count < len(SPLITS):
            raise DatasetError(
                f"class {name!r} should have at least 3 different readable images, one each for train, val and test; "
                f"it has {count}"
            )
        tests = min(max(1, round(count * test_fraction)), count - 2)
        vals = min(max(1, round(count * val_fraction)), count - 1 - tests)
        for rank, image in enumerate(images):
            split_of[image.sha256] = "test" if rank < tests else "val" if rank < tests + vals else "train"
    return [replace(sample, split=split_of[sample.sha256]) for sample in samples]
