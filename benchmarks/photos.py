"""The photographs that clients send: JPEGs cut from scikit-learn's two photographs."""

import io

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

SMALL = (500, 375)
THUMBNAIL = (32, 32)
PHONE = (4032, 3024)  # 12 megapixels
QUALITY = 90


def small_photos(count: int = 16) -> list[bytes]:
    """Returns JPEGs of 500 x 375, as in ImageNet: about 50 KB each."""
    return [_jpeg(_piece(i, count).resize(SMALL, Image.Resampling.LANCZOS)) for i in range(count)]


def thumbnails(count: int = 16) -> list[bytes]:
    """Returns JPEGs of 32 x 32, about 1 KB each: with hardly anything to decode, the server itself is timed."""
    return [_jpeg(_piece(i, count).resize(THUMBNAIL, Image.Resampling.LANCZOS)) for i in range(count)]


def phone_photos(count: int = 8) -> list[bytes]:
    """Returns JPEGs of 4032 x 3024, as a phone takes them, with a sensor's noise: a few MB each."""
    photos = []
    for i in range(count):
        pixels = np.asarray(_piece(i, count).resize(PHONE, Image.Resampling.BICUBIC), np.int16)
        noise = np.random.default_rng(i).integers(-6, 7, pixels.shape, np.int16)
        photos.append(_jpeg(Image.fromarray(np.clip(pixels + noise, 0, 255).astype(np.uint8))))
    return photos


def _piece(i: int, count: int) -> Image.Image:
    """Returns one of `count` different parts of a photograph, 4:3."""
    photo = Image.fromarray(load_sample_images().images[i % 2])
    width = photo.width * 3 // 4
    height = width * 3 // 4
    shift = i / max(count - 1, 1)
    left, top = round(shift * (photo.width - width)), round((1 - shift) * (photo.height - height))
    return photo.crop((left, top, left + width, top + height))


def _jpeg(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=QUALITY)
    return file.getvalue()
