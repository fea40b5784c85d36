"""Pictures to decode: drawn here, or kept in `data/`."""

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.contract.manifest import Preprocessing

SQUARE = Preprocessing(height=32, width=32)
# made by pillow-heif 1.8, whose wheel has an encoder: `quadrants(64).save("upright.heic", quality=90)`; turned.heic is
# `quadrants(64).transpose(Image.Transpose.ROTATE_90)` with orientation 6, written as a turn of HEIF's and as EXIF
DATA = Path(__file__).parent / "data"


def encoded(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:  # Any: Pillow's options
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def photograph(width: int, height: int) -> Image.Image:
    """Draws smooth shades with some noise, like a camera's."""
    y, x = np.mgrid[0 : 1 : complex(height), 0 : 1 : complex(width)]
    shades = np.stack([x, y, (np.sin(9 * x) * np.cos(7 * y) + 1) / 2], axis=-1) * 230
    noise = np.random.default_rng(0).normal(0, 6, shades.shape)
    return Image.fromarray(np.clip(shades + noise, 0, 255).astype(np.uint8))


def quadrants(size: int) -> Image.Image:
    """Draws red and green above blue and white: each rotation or reflection gives another picture."""
    image = Image.new("RGB", (size, size), "white")
    half = size // 2
    image.paste("red", (0, 0, half, half))
    image.paste("lime", (half, 0, size, half))
    image.paste("blue", (0, half, half, size))
    return image


def tiff(
    samples: NDArray[np.generic], *, bits: int = 8, channels: int = 1, alpha: int = 0, signed: bool = False
) -> bytes:
    """Returns an uncompressed 32 x 32 file, gray or RGB, with samples of kinds that Pillow cannot write."""
    tags = {256: 32, 257: 32, 258: bits, 259: 1, 262: 2 if channels > 2 else 1, 277: channels, 278: 32}
    tags |= {279: samples.nbytes, 339: 2 if signed else 1} | ({338: alpha} if alpha else {})
    begin = 8 + 2 + 12 * (len(tags) + 1) + 4
    tags[273] = begin + 2 * channels
    entries = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items())]
    if channels > 1:  # as many numbers of bits as channels: two fit into the entry
        value = struct.pack("<HH", bits, bits) if channels == 2 else struct.pack("<I", begin)
        entries[2] = struct.pack("<HHI", 258, 3, channels) + value
    directory = struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)
    return b"II*\0" + struct.pack("<I", 8) + directory + struct.pack("<H", bits) * channels + samples.tobytes()


def jpeg_of_scans(width: int, height: int, scans: int, *, progressive: bool = True) -> bytes:
    """Returns a JPEG of three components whose scans are empty: some bytes each, and a pass over the whole picture."""
    whole = encoded(Image.new("RGB", (16, 16)), "JPEG", subsampling=0, progressive=progressive)
    frame = whole.index(b"\xff\xc2" if progressive else b"\xff\xc0")
    head = whole[: frame + 5] + struct.pack(">HH", height, width) + whole[frame + 9 : whole.index(b"\xff\xda")]
    if not progressive:  # a component at a time
        return head + bytes.fromhex("ffda00080101 00003f00 00") * scans + b"\xff\xd9"
    first, refining = (bytes.fromhex(f"ffda000c03 010002000300 0000{bits} 00") for bits in ("01", "10"))
    return head + first + refining * (scans - 1) + b"\xff\xd9"


def bmp_in_runs() -> bytes:
    """Returns a red BMP of 32 x 32 whose rows are packed as runs."""
    rows = b"\x20\x00\x00\x00" * 32 + b"\x00\x01"
    header = struct.pack("<IIIHHIIIIII", 40, 32, 32, 1, 8, 1, len(rows), 0, 0, 2, 0)
    return b"BM" + struct.pack("<IHHI", 62 + len(rows), 0, 0, 62) + header + b"\0\0\xff\0\xff\0\0\0" + rows


def tiff_of_tags(tags: dict[int, int | list[int]], samples: bytes) -> bytes:
    """Returns an uncompressed gray TIFF of these tags; the samples begin at 8."""
    directory, outside = b"", b""
    begin = 8 + len(samples) + 2 + 12 * (len(tags) + 5) + 4
    for tag, value in sorted({258: 8, 259: 1, 262: 1, 277: 1, 284: 1, **tags}.items()):
        values = value if isinstance(value, list) else [value]
        packed = struct.pack(f"<{len(values)}I", *values)
        place = packed if len(values) == 1 else struct.pack("<I", begin + len(outside))
        outside += packed if len(values) > 1 else b""
        directory += struct.pack("<HHI", tag, 4, len(values)) + place
    count = struct.pack("<H", len(directory) // 12)
    return b"II*\0" + struct.pack("<I", 8 + len(samples)) + samples + count + directory + bytes(4) + outside


def heif_of_tiles(tiles: int, width: int, height: int, *, depth: int = 1) -> bytes:
    """Returns a HEIF whose main image, of that size, is laid together of so many items, each upright.heic's 64 x 64.

    With a larger `depth` the tiles lie in an image in an image. Its items share their pixels.
    """
    source = (DATA / "upright.heic").read_bytes()
    pixels = source[source.index(b"mdat") + 4 :]
    codec, size = (_found(source, kind) for kind in (b"hvcC", b"ispe"))
    first = 1 + depth
    items = range(first, first + tiles)
    made_of = {number: [number + 1] for number in range(1, depth)} | {depth: list(items)}
    kinds = dict.fromkeys(made_of, b"grid") | dict.fromkeys(items, b"hvc1")
    entries = b"".join(_box(b"infe", struct.pack(">IHH4sx", 2 << 24, n, 0, kind)) for n, kind in kinds.items())
    parts = b"".join(
        _box(b"dimg", struct.pack(f">{2 + len(of)}H", number, len(of), *of)) for number, of in made_of.items()
    )
    sizes = codec + size + _box(b"ispe", struct.pack(">III", 0, width, height))
    own = b"".join(struct.pack(">HBB", n, 1, 3) for n in made_of)
    own += b"".join(struct.pack(">HBBB", n, 2, 1, 2) for n in items)
    properties = _box(b"ipco", sizes) + _box(b"ipma", struct.pack(">II", 0, len(kinds)) + own)
    grids = b"".join(struct.pack(">BBBBII", 0, 1, 0, len(of) - 1, width, height) for of in made_of.values())

    def meta(begin: int) -> bytes:
        places = b"".join(struct.pack(">HHHHII", n, 1, 0, 1, 12 * (n - 1), 12) for n in made_of)
        places += b"".join(struct.pack(">HHHHII", n, 0, 0, 1, begin, len(pixels)) for n in items)
        return _box(
            b"meta",
            bytes(4),
            _box(b"hdlr", struct.pack(">II4s13x", 0, 0, b"pict")),
            _box(b"pitm", struct.pack(">IH", 0, 1)),
            _box(b"iinf", struct.pack(">IH", 0, len(kinds)) + entries),
            _box(b"iref", bytes(4), parts),
            _box(b"iprp", properties),
            _box(b"iloc", struct.pack(">IBBH", 1 << 24, 0x44, 0, len(kinds)) + places),
            _box(b"idat", grids),
        )

    head = _box(b"ftyp", b"heic", bytes(4), b"mif1heic")
    return head + meta(len(head) + len(meta(0)) + 8) + _box(b"mdat", pixels)


def _box(kind: bytes, *content: bytes) -> bytes:
    return struct.pack(">I", 8 + sum(map(len, content))) + kind + b"".join(content)


def _found(data: bytes, kind: bytes) -> bytes:
    begin = data.index(kind) - 4
    return data[begin : begin + int.from_bytes(data[begin : begin + 4])]
