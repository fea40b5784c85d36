from pathlib import Path

import numpy as np

from benchmarks.recipes import Trial, drawn, table
from training.contract.intervals import Proportion
from training.datasets.layout import Sample
from training.datasets.loading import Split


def pool(images: int) -> Split:
    """Images that each hold their own number."""
    pixels = np.arange(images, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    samples = [Sample(Path(f"{i}.png"), f"{i}.png", i % 10) for i in range(images)]
    return Split(pixels, np.arange(images, dtype=np.int32) % 10, samples)


def test_a_draw_has_its_images_once_and_labels_from_0() -> None:
    splits = drawn({"train": pool(200), "test": pool(30)}, range(5, 10), 8, seed=0)
    assert [len(splits[name]) for name in ("train", "val", "test")] == [40, 10, 15]
    train, val = ({int(image[0, 0, 0]) for image in splits[name].images} for name in ("train", "val"))
    assert (len(train), len(val), train & val) == (40, 10, set())
    for split in splits.values():
        assert (split.images[:, 0, 0, 0] % 10 == split.labels + 5).all()
    again, other = (drawn({"train": pool(200), "test": pool(30)}, range(5, 10), 8, seed) for seed in (0, 1))
    np.testing.assert_array_equal(again["train"].images, splits["train"].images)
    assert not np.array_equal(other["train"].images, splits["train"].images)


def test_the_table_has_the_mean_and_each_seed() -> None:
    done = [Trial(Proportion(count, 100), 60.0 + count, Path()) for count in (70, 80)]
    assert table("few", {"modern": done}).splitlines()[2:] == ["| modern | 0.750 | 0.700 0.800 | 135 |"]
