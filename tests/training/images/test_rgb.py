import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tests.process import ROOT
from tests.training.images.pictures import encoded, photograph
from training.contract.manifest import Preprocessing
from training.images.decode import decode
from training.images.resize import Picture, resized
from training.images.rgb import LARGE, to_rgb

SIZE = (2_011, 2_003)
PREPROCESSING = Preprocessing(height=224, width=224, resize_mode="crop", resize=256)


def colored() -> Image.Image:
    """Returns a picture whose alpha goes from one side to the other."""
    image = photograph(*SIZE).convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(SIZE))
    return image


COLORED = colored()
MODES = {
    "RGBA": COLORED,
    "RGBa": COLORED.convert("RGBa"),
    "LA": COLORED.convert("LA"),
    "CMYK": COLORED.convert("RGB").convert("CMYK"),
    "L": COLORED.convert("L"),
    "1": COLORED.convert("1"),
    "P": COLORED.convert("RGB").quantize(16),
    "I;16": Image.fromarray(np.asarray(COLORED.convert("L")).astype(np.uint16) * 257),
}
MODES["P"].info["transparency"] = 3


@pytest.mark.parametrize("mode", MODES)
def test_a_large_image_is_converted_in_strips_as_it_would_be_at_once(mode: str) -> None:
    image = MODES[mode]
    assert image.mode == mode
    assert image.width * image.height > LARGE
    upper, lower = image.crop((0, 0, SIZE[0], 1_001)), image.crop((0, 1_001, *SIZE))
    parts = [np.asarray(to_rgb(part)) for part in (upper, lower)]  # each is small enough
    whole = to_rgb(image)
    np.testing.assert_array_equal(np.asarray(whole), np.concatenate(parts))
    np.testing.assert_array_equal(np.asarray(to_rgb(image, 3)), np.asarray(whole.reduce(3)))


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("mode", ["RGBA", "L", "RGB"])
def test_a_large_image_is_divided_by_less_than_one_sees(mode: str, orientation: int) -> None:
    image = COLORED.convert(mode)
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = decode(encoded(image, compress_level=1, exif=exif), PREPROCESSING).astype(int)
    upright = Picture(to_rgb(image), SIZE).upright(orientation)
    exact = np.asarray(resized(upright, PREPROCESSING), int)
    assert np.abs(found - exact).mean() < 0.6
    if mode == "RGB" and orientation == 1:
        np.testing.assert_array_equal(found, exact)


MEASURE = """
import sys
from tests.training.images.pictures import SQUARE, encoded
from training.images.decode import decode
from PIL import Image
def memory(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name)) // 1024
small = encoded(Image.new("RGBA", (8, 8)))
decode(small, SQUARE)
freed = [bytes(100_000) for _ in range(1_000)]
last = freed.pop()  # what lies below it is not given back by itself
freed.clear()
figures = [memory("VmRSS")]
open("/proc/self/clear_refs", "w").write("5")
for image in (small, sys.stdin.buffer.read()):
    decode(image, SQUARE)
    figures.append(memory("VmRSS"))
print(*figures, memory("VmHWM"))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="measured in /proc")
def test_a_large_image_takes_the_memory_of_its_pixels_and_gives_back_what_is_free() -> None:
    """26 megapixels are 101 MiB as RGBA. Each copy would be as many."""
    data = encoded(Image.new("RGBA", (5_150, 5_150)), compress_level=1)
    command = [sys.executable, "-c", MEASURE]
    child = subprocess.run(command, input=data, capture_output=True, check=True, cwd=ROOT, timeout=60)
    before, small, large, most = map(int, child.stdout.split())
    assert most - before < 160
    assert abs(small - before) < 20
    assert large < before - 60
