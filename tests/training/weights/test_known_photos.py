import io

import pytest
from PIL import Image

from training.weights.known_photos import KNOWN_PHOTOS, KnownPhoto, Opinion, has_known_labels, require_right
from training.weights.presets import imagenet_labels
from training.weights.store import WeightsRejected

LABELS = {photo: next(label for label in imagenet_labels() if label in photo.labels) for photo in KNOWN_PHOTOS}


@pytest.mark.parametrize("photo", KNOWN_PHOTOS, ids=lambda photo: photo.file)
def test_photos_are_small_jpegs_with_labels_of_imagenet(photo: KnownPhoto) -> None:
    data = photo.read()
    with Image.open(io.BytesIO(data)) as image:
        assert (image.format, image.mode, max(image.size)) == ("JPEG", "RGB", 400)
        assert min(image.size) >= 256  # the short side before the crop: no photo is blown up
    assert len(data) <= 40_000
    assert photo.labels <= set(imagenet_labels())


def opinions(wrong: int) -> list[Opinion]:
    return [Opinion(photo, "hen" if i < wrong else LABELS[photo], 0.5) for i, photo in enumerate(KNOWN_PHOTOS)]


def test_one_photo_may_be_named_wrongly_and_no_more() -> None:
    require_right("w", opinions(0))
    require_right("w", opinions(1))
    with pytest.raises(WeightsRejected) as caught:
        require_right("w", opinions(2))
    assert str(caught.value) == (
        "the weights 'w' should name 3 of 4 photos of known things, they name 2. They say of camera.jpg: hen (0.50), "
        "expected reflex camera or tripod; cat.jpg: hen (0.50), expected Egyptian cat or tabby or tiger cat"
    )


def test_other_labels_name_no_photo() -> None:
    labels = imagenet_labels()
    assert has_known_labels(labels)
    assert not has_known_labels(labels[::-1])
    assert not has_known_labels(["cat", "dog"])
