import io

import pytest
from PIL import Image

from training.weights.known_photos import KNOWN_PHOTOS, KnownPhoto, Opinion, are_right, has_known_labels
from training.weights.presets import imagenet_labels

LABELS = {photo: next(label for label in imagenet_labels() if label in photo.labels) for photo in KNOWN_PHOTOS}


@pytest.mark.parametrize("photo", KNOWN_PHOTOS, ids=lambda photo: photo.file)
def test_photos_are_small_jpegs_with_labels_of_imagenet(photo: KnownPhoto) -> None:
    data = photo.read()
    with Image.open(io.BytesIO(data)) as image:
        assert (image.format, image.mode, max(image.size)) == ("JPEG", "RGB", 400)
        assert min(image.size) >= 256  # the short side before the crop: no photo is blown up
    assert len(data) <= 40_000
    assert photo.labels <= set(imagenet_labels())


def test_one_photo_may_be_misnamed_and_no_more() -> None:
    def opinions(wrong: int) -> list[Opinion]:
        return [Opinion(photo, "hen" if i < wrong else LABELS[photo], 0.5) for i, photo in enumerate(KNOWN_PHOTOS)]

    assert [are_right(opinions(wrong)) for wrong in range(4)] == [True, True, False, False]
    assert str(opinions(1)[0]) == "camera.jpg: hen (0.50)"


def test_other_labels_name_no_photo() -> None:
    labels = imagenet_labels()
    assert has_known_labels(labels)
    assert not has_known_labels(labels[::-1])
    assert not has_known_labels(["cat", "dog"])
