import itertools
import warnings
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.datasets import load_sample_image

from training.config import AUGMENTATIONS, Augmentation
from training.datasets.layout import Sample
from training.datasets.loading import Split
from training.network.pipeline import affine, augment, evaluation_batches, steps_per_epoch, training_batches
from training.network.runtime import keras, tf

PHOTO = load_sample_image("china.jpg")
NOTHING = AUGMENTATIONS["none"]
TUTORIAL = AUGMENTATIONS["tutorial"]

Batch = tuple[NDArray[np.float32], NDArray[np.float32]]


def pieces(count: int, size: int = 48) -> Split:
    """Different pieces of a photograph, in three classes."""
    corners = [(i * 7 % (PHOTO.shape[0] - size), i * 13 % (PHOTO.shape[1] - size)) for i in range(count)]
    images = np.stack([PHOTO[top : top + size, left : left + size] for top, left in corners])
    labels = np.arange(count, dtype=np.int32) % 3
    return Split(images, labels, [Sample(Path(f"{i}.jpg"), f"{i}.jpg", i % 3) for i in range(count)])


def take(dataset: tf.data.Dataset, batches: int) -> list[Batch]:
    return list(itertools.islice(dataset.as_numpy_iterator(), batches))


def epoch(split: Split, number: int, seed: int = 0, augmentation: Augmentation = NOTHING) -> list[Batch]:
    dataset = training_batches(split, 3, 8, augmentation, seed, first_epoch=number)
    return take(dataset, steps_per_epoch(len(split), 8))


def rows(batches: list[Batch], split: Split) -> list[int]:
    """Returns the row in the split of each image of the batches."""
    return [int(np.flatnonzero((split.images == image).all((1, 2, 3)))[0]) for images, _ in batches for image in images]


def equal(one: list[Batch], two: list[Batch]) -> bool:
    return all(np.array_equal(a, b) for x, y in zip(one, two, strict=True) for a, b in zip(x, y, strict=True))


def transformed(image: NDArray[np.float32], *, mirror: bool = False, **parameters: float) -> NDArray[np.float32]:
    """Our affine map of one image, as the pipeline applies it."""
    values = {"rotation": 0, "shift_x": 0, "shift_y": 0, "shear": 0, "zoom_x": 1, "zoom_y": 1} | parameters
    tensors = {name: tf.constant([value], tf.float32) for name, value in values.items()}
    transforms = affine(image.shape[0], image.shape[1], mirror=tf.constant([mirror]), **tensors)
    result: NDArray[np.float32] = keras.ops.image.affine_transform(
        image[None], transforms, interpolation="bilinear", fill_mode="nearest"
    ).numpy()[0]
    return result


def reference(image: NDArray[np.float32], **parameters: float) -> NDArray[np.float32]:
    """Keras' ImageDataGenerator's."""
    generator = keras.src.legacy.preprocessing.image.ImageDataGenerator(fill_mode="nearest")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it calls SciPy by a name of old
        result: NDArray[np.float32] = generator.apply_transform(image, parameters)
    return result


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({"rotation": 17.0}, {"theta": 17.0}),
        ({"shift_x": 9.5, "shift_y": -14.25}, {"tx": 9.5, "ty": -14.25}),
        ({"shear": 12.0}, {"shear": 12.0}),
        ({"zoom_x": 0.8, "zoom_y": 1.15}, {"zx": 0.8, "zy": 1.15}),
        ({"mirror": True}, {"flip_horizontal": True}),
        (
            {"rotation": -13.0, "shift_x": 7.0, "shift_y": 5.0, "shear": 9.0, "zoom_x": 1.2, "zoom_y": 0.9},
            {"theta": -13.0, "tx": 7.0, "ty": 5.0, "shear": 9.0, "zx": 1.2, "zy": 0.9},
        ),
        (
            {"rotation": 20.0, "shift_x": -11.0, "shear": -7.0, "zoom_x": 0.85, "zoom_y": 1.1, "mirror": True},
            {"theta": 20.0, "tx": -11.0, "shear": -7.0, "zx": 0.85, "zy": 1.1, "flip_horizontal": True},
        ),
    ],
)
def test_the_geometry_is_that_of_image_data_generator(ours: dict[str, float], theirs: dict[str, float]) -> None:
    image = PHOTO[100:324, 200:424].astype(np.float32)
    difference = np.abs(transformed(image, **ours) - reference(image, **theirs))  # type: ignore[arg-type]  # a bool too
    assert difference.max() < 0.05  # of 255: float32 coordinates against SciPy's float64
    assert np.abs(reference(image, **theirs) - image).mean() > 5  # and it did something


def test_zero_parameters_change_nothing() -> None:
    image = PHOTO[:61, :97].astype(np.float32)
    np.testing.assert_array_equal(transformed(image), image)
    batch = tf.constant(np.stack([image, image]))
    np.testing.assert_array_equal(augment(batch, NOTHING, tf.constant([1, 2])), batch)


def test_mirroring_is_exact_and_hits_half() -> None:
    split = pieces(400, 16)
    images = tf.cast(split.images, tf.float32)
    flipped = augment(images, NOTHING.model_copy(update={"horizontal_flip": True}), tf.constant([3, 4])).numpy()
    mirrored = [np.array_equal(out, image[:, ::-1]) for out, image in zip(flipped, split.images, strict=True)]
    kept = [np.array_equal(out, image) for out, image in zip(flipped, split.images, strict=True)]
    assert all(a or b for a, b in zip(mirrored, kept, strict=True))
    assert 150 < sum(mirrored) < 250


@pytest.mark.parametrize(
    ("part", "moves"),
    [({"width_shift": 0.2}, (False, True)), ({"height_shift": 0.2}, (True, False))],
)
def test_a_shift_moves_its_own_axis_in_bounds_and_fills_with_the_edge(
    part: dict[str, float], moves: tuple[bool, bool]
) -> None:
    ramp_y, ramp_x = np.meshgrid(np.arange(40.0), np.arange(80.0), indexing="ij")
    image = np.stack([ramp_y, ramp_x, ramp_x], axis=-1).astype(np.float32)  # each pixel holds its own coordinates
    out = augment(tf.constant(np.stack([image] * 200)), NOTHING.model_copy(update=part), tf.constant([5, 6])).numpy()
    shifts = (out - image)[:, 20, 40, :2]  # at the center, far from what is filled in
    limits = np.array([0.2 * 40, 0.2 * 80]) * moves
    assert (np.abs(shifts).max(axis=0) <= limits + 1e-3).all()
    assert (np.abs(shifts).max(axis=0) >= 0.9 * limits).all()
    np.testing.assert_allclose(shifts.mean(axis=0), 0, atol=2)
    # what was moved out of the picture is filled with its edge: coordinates never turn back
    assert (np.diff(out[..., 0], axis=1) > -1e-3).all()
    assert (np.diff(out[..., 1], axis=2) > -1e-3).all()


def test_an_epoch_shows_every_image_once_and_fills_its_last_batch() -> None:
    split = pieces(21)
    batches = epoch(split, 0)
    assert [images.shape for images, _ in batches] == [(8, 48, 48, 3)] * 3
    seen = rows(batches, split)
    assert sorted(seen[:21]) == list(range(21))
    assert seen[21:] == seen[:3]
    targets = np.concatenate([targets for _, targets in batches])
    assert targets.dtype == np.float32
    np.testing.assert_array_equal(targets, np.eye(3)[split.labels[seen]])


def test_a_batch_is_never_larger_than_the_dataset() -> None:
    split = pieces(5)
    ((images, _),) = take(training_batches(split, 3, 32, NOTHING, 0), 1)
    assert len(images) == 5
    assert steps_per_epoch(5, 32) == 1
    assert steps_per_epoch(64, 32) == 2
    assert steps_per_epoch(65, 32) == 3


def test_each_epoch_has_its_own_order_and_augmentation() -> None:
    split = pieces(24)
    first, second = (rows(epoch(split, number), split) for number in (0, 1))
    assert first != second
    assert sorted(first) == sorted(second)
    ones = pieces(1)
    looks = [image for number in range(4) for image in epoch(ones, number, augmentation=TUTORIAL)[0][0]]
    assert len({look.tobytes() for look in looks}) == 4


def test_a_seed_gives_the_same_batches_and_another_seed_others() -> None:
    split = pieces(24)
    once = epoch(split, 2, seed=5, augmentation=TUTORIAL)
    assert equal(once, epoch(split, 2, seed=5, augmentation=TUTORIAL))
    assert not equal(once, epoch(split, 2, seed=6, augmentation=TUTORIAL))
    assert not equal(epoch(split, 0, seed=1), epoch(split, 0, seed=1 + 2**31))


def test_a_resumed_run_gets_the_batches_of_an_unbroken_one() -> None:
    split = pieces(21)
    steps = steps_per_epoch(21, 8)
    unbroken = take(training_batches(split, 3, 8, TUTORIAL, 0), 3 * steps)
    resumed = take(training_batches(split, 3, 8, TUTORIAL, 0, first_epoch=2), steps)
    assert equal(unbroken[2 * steps :], resumed)


def test_evaluation_shows_all_images_in_order_with_a_short_last_batch() -> None:
    split = pieces(21)
    batches = take(evaluation_batches(split, 3, 8), 9)
    assert [len(images) for images, _ in batches] == [8, 8, 5]
    np.testing.assert_array_equal(np.concatenate([images for images, _ in batches]), split.images)
    np.testing.assert_array_equal(np.concatenate([targets for _, targets in batches]), np.eye(3)[split.labels])


def test_keras_fits_over_epochs_under_a_strategy(tmp_path: Path) -> None:
    split = pieces(21)
    disk = np.memmap(tmp_path / "pixels", np.uint8, "w+", shape=split.images.shape)
    disk[:] = split.images
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        model = keras.Sequential([keras.Input((48, 48, 3)), keras.layers.Flatten(), keras.layers.Dense(3)])
        model.compile("sgd", keras.losses.CategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    history = model.fit(
        training_batches(Split(disk, split.labels, split.samples), 3, 8, TUTORIAL, 0),
        steps_per_epoch=steps_per_epoch(21, 8),
        validation_data=evaluation_batches(split, 3, 8),
        epochs=3,
        shuffle=False,  # it is shuffled; Keras warns of its default
        verbose=0,
    ).history
    assert len(history["val_accuracy"]) == 3
