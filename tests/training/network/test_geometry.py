import warnings

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.datasets import load_sample_image

from training.network.geometry import affine, crop_boxes, cropped, geometry
from training.network.runtime import keras, tf
from training.recipes import AUGMENTATIONS

PHOTO = load_sample_image("china.jpg")
NOTHING = AUGMENTATIONS["none"]
KEY = tf.constant([1, 2], tf.int64)


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
    np.testing.assert_array_equal(geometry(batch, NOTHING, tf.constant([1, 2])), batch)


def test_mirroring_is_exact_and_hits_half() -> None:
    pieces = np.stack([PHOTO[i : i + 16, i : i + 16] for i in range(400)])
    images = tf.cast(pieces, tf.float32)
    flipped = geometry(images, NOTHING.model_copy(update={"horizontal_flip": True}), tf.constant([3, 4])).numpy()
    mirrored = [np.array_equal(out, image[:, ::-1]) for out, image in zip(flipped, pieces, strict=True)]
    kept = [np.array_equal(out, image) for out, image in zip(flipped, pieces, strict=True)]
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
    out = geometry(tf.constant(np.stack([image] * 200)), NOTHING.model_copy(update=part), tf.constant([5, 6])).numpy()
    shifts = (out - image)[:, 20, 40, :2]  # at the center, far from what is filled in
    limits = np.array([0.2 * 40, 0.2 * 80]) * moves
    assert (np.abs(shifts).max(axis=0) <= limits + 1e-3).all()
    assert (np.abs(shifts).max(axis=0) >= 0.9 * limits).all()
    np.testing.assert_allclose(shifts.mean(axis=0), 0, atol=2)
    # what was moved out of the picture is filled with its edge: coordinates never turn back
    assert (np.diff(out[..., 0], axis=1) > -1e-3).all()
    assert (np.diff(out[..., 1], axis=2) > -1e-3).all()


def test_a_crop_is_the_box_of_the_photo_enlarged() -> None:
    """Half of each side at once, in whole pixels: what comes is Keras' own resize of that box."""
    image = PHOTO[:64, :96].astype(np.float32)
    half = tf.constant([0.5])
    box = cropped(identity(), 64, 96, half, half, tf.constant([12 / 96]), tf.constant([20 / 64]))
    ours = keras.ops.image.affine_transform(image[None], box, interpolation="bilinear", fill_mode="nearest").numpy()[0]
    theirs = keras.ops.image.resize(image[20:52, 12:60], (64, 96)).numpy()
    # resize stops at the box's edge, where the photo goes on
    np.testing.assert_allclose(ours[2:-2, 2:-2], theirs[2:-2, 2:-2], atol=0.01)


def identity() -> tf.Tensor:
    zero, one = tf.zeros([1]), tf.ones([1])
    return affine(
        64,
        96,
        rotation=zero,
        shift_x=zero,
        shift_y=zero,
        shear=zero,
        zoom_x=one,
        zoom_y=one,
        mirror=tf.constant([False]),
    )


def test_crops_lie_within_the_image_and_have_the_area_that_was_asked_for() -> None:
    width, height, left, top = (side.numpy() for side in crop_boxes(2000, 0.6, KEY))
    area = width * height
    assert area.max() <= 1
    assert 0.37 < area.min() < 0.43
    assert area.mean() == pytest.approx(0.7, abs=0.03)
    for start, size in ((left, width), (top, height)):
        assert start.min() >= 0
        assert (start + size).max() <= 1 + 1e-6
        assert start[size < 0.9].std() > 0.05
    assert (width / height).min() >= 3 / 4 - 1e-6
    assert (width / height).max() <= 4 / 3 + 1e-6


def test_a_crop_is_one_more_part_of_the_same_map() -> None:
    image = tf.constant(np.stack([PHOTO[:64, :96].astype(np.float32)] * 8))
    crops = NOTHING.model_copy(update={"crop": 0.5})
    out = geometry(image, crops, KEY).numpy()
    assert len({picture.tobytes() for picture in out}) == 8
    np.testing.assert_array_equal(geometry(image, crops, KEY), out)
    assert out.min() >= PHOTO[:64, :96].min()
    assert out.max() <= PHOTO[:64, :96].max()
