"""Removes from an encoded image what changes no pixel: text, profiles, thumbnails, EXIF.

The decoder never sees these parts: a damaged comment does not make a sound picture unreadable, and a comment that
unpacks to a gigabyte is not unpacked. The only value that is read from EXIF is the orientation.
"""

import re
import struct
import zlib
from collections.abc import Callable, Iterator

from training.images.parts import MAX_PARTS, TooCostly, bounded

UPRIGHT = 1
# of a segment; fill bytes may stand before it. `\xff+` for them would take quadratic time
JPEG_MARKER = re.compile(rb"\xff([^\xff\x00\x01\xd0-\xd8])", re.DOTALL)
JPEG_SCAN = 0xDA
JPEG_SEGMENT = 2**16 + 1  # bytes at the most
PNG_END = struct.pack(">I4sI", 0, b"IEND", zlib.crc32(b"IEND"))
WEBP_PIXELS = (b"VP8X", b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF")
WEBP_FLAGS = 0x20 | 0x08 | 0x04  # in VP8X: a color profile, EXIF and XMP are present
# A TIFF's tags about its pixels are below 32768, except LERC's. The dropped ones are below it and not about pixels:
# names, dates, resolution (282, 283, 296), orientation (274), places of further images (330).
TIFF_ORIENTATION = 274
EXIF_BEGIN = re.compile(rb"(?:Exif\0\0)+")
EXIF_ENTRIES = 500  # that are looked at: each of a JPEG's segments may hold thousands. Cameras write some dozens
TIFF_INTEGERS = {3: "H", 4: "I"}  # struct codes by the type of a tag's value
TIFF_DROPPED = {269, 270, 271, 272, 274, 282, 283, 285, 296, 297, 305, 306, 315, 316, 330, 700}
TIFF_LERC = {50674, 50675}
HEIF_ITEM = rb"(infe(?:\x02.{7}|\x03.{9}))"  # an item's entry: version, flags, id, index
HEIF_EXIF = re.compile(HEIF_ITEM + b"Exif", re.DOTALL)
HEIF_OVERLAY = re.compile(HEIF_ITEM + b"iovl", re.DOTALL)


def without_metadata(data: bytes) -> tuple[bytes, int]:
    """Returns an image without metadata, its pixels encoded as they were, and its EXIF orientation, 1 to 8.

    A format that is not known here is returned unchanged. Raises ValueError and struct.error for a PNG whose pixels,
    palette or header are damaged, TooCostly for a file of too many parts.
    """
    for begins, strip in STRIPS.items():
        if re.match(begins, data, re.DOTALL):
            return strip(data)
    return data, UPRIGHT


def orientation_of(exif: bytes) -> int:
    """Returns the orientation in an EXIF block, 1 to 8; 1 where the block is damaged."""
    if begin := EXIF_BEGIN.match(exif):
        exif = exif[begin.end() :]
    try:
        order, entries, _ = _tiff_entries(exif)
    except (struct.error, ValueError):
        return UPRIGHT
    for entry in entries[:EXIF_ENTRIES]:
        tag, kind = struct.unpack_from(f"{order}HH", entry)
        if tag == TIFF_ORIENTATION and kind in TIFF_INTEGERS:
            (value,) = struct.unpack_from(order + TIFF_INTEGERS[kind], entry, 8)
            return int(value) if 1 <= value <= 8 else UPRIGHT
    return UPRIGHT


def _jpeg(data: bytes) -> tuple[bytes, int]:
    """Removes comments and application segments, except the two that say how colors are encoded."""
    parts = [data[:2]]
    orientation = UPRIGHT
    for code, start, end in jpeg_segments(data):
        if code == JPEG_SCAN:
            parts.append(data[start:])
            break
        content = data[start + 4 : end]
        if code == 0xE1 and content.startswith(b"Exif\0\0") and orientation == UPRIGHT:
            orientation = orientation_of(content)
        if not _is_jpeg_metadata(code, content):
            parts.append(data[start:end])
    else:  # a parser would look for pixels byte by byte
        parts = [data[:JPEG_SEGMENT]]
    return b"".join(parts), orientation


def jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yields each segment's marker, begin and end, up to the end of the image or to a segment that is cut short.

    Raises TooCostly for too many.
    """
    return bounded(_jpeg_segments(data))


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    at = 2
    while marker := JPEG_MARKER.search(data, at):
        code, begin = marker[1][0], marker.end()
        if code == 0xD9:
            return
        at = begin + int.from_bytes(data[begin : begin + 2])
        if not begin + 2 <= at <= len(data):
            return
        yield code, begin - 2, at


def _is_jpeg_metadata(code: int, content: bytes) -> bool:
    if code == 0xE0:
        return not (content.startswith(b"JFIF\0") and len(content) >= 14)  # libjpeg ignores shorter ones too
    if code == 0xEE:
        return not (content.startswith(b"Adobe") and len(content) >= 12)
    return code == 0xFE or 0xE1 <= code <= 0xEF


def _png(data: bytes) -> tuple[bytes, int]:
    """Removes ancillary chunks, except transparency; an animation's further images are ancillary chunks too.

    Adds the end where it is missing. Raises ValueError when a critical chunk is damaged.
    """
    parts: list[bytes | memoryview] = [data[:8]]
    orientation = UPRIGHT
    view = memoryview(data)
    for kind, chunk in bounded(_png_chunks(data)):
        if kind[0] & 0x20:  # a lower-case letter marks an ancillary chunk
            if kind == b"tRNS" and _is_sound(view[chunk]) and _is_transparency(view[chunk], data[25:26]):
                parts.append(view[chunk])
            if kind == b"eXIf" and _is_sound(view[chunk]):
                orientation = orientation_of(data[chunk][8:-4])
        elif chunk.stop > len(data) and kind == b"IDAT":  # the file ends in it; missing rows show in the decoder
            length = struct.unpack_from(">I", data, chunk.start)[0]
            content = data[chunk][8 : 8 + length]
            parts.append(struct.pack(">I4s", len(content), kind) + content + bytes(4))
        elif not _is_sound(view[chunk]):
            raise ValueError(f"the checksum of its chunk {kind.decode()} does not fit the chunk")
        else:
            parts.append(view[chunk])
    return b"".join([*parts, PNG_END]), orientation


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, slice]]:
    """Yields each chunk's kind and place, up to the end of the image or of the file."""
    at = 8
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind == b"IEND" or not kind.isalpha():
            return
        yield kind, slice(at, at + 12 + length)
        at += 12 + length


def _is_sound(chunk: memoryview) -> bool:
    return len(chunk) >= 12 and zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:])


def _is_transparency(chunk: memoryview, color_type: bytes) -> bool:
    """Whether the chunk has one value for gray, three for RGB, or one for each color of a palette."""
    lengths = {b"\0": range(2, 3), b"\2": range(6, 7), b"\3": range(1, 257)}
    return len(chunk) - 12 in lengths.get(color_type, ())


def _webp(data: bytes) -> tuple[bytes, int]:
    kept: list[bytes] = []
    orientation, size = UPRIGHT, 4
    for kind, at, end in bounded(_webp_chunks(data)):
        if kind in WEBP_PIXELS:
            chunk = data[at:end]
            if kind == b"VP8X" and len(chunk) > 8:
                chunk = chunk[:8] + bytes([chunk[8] & ~WEBP_FLAGS]) + chunk[9:]
            kept.append(chunk)
            size += end - at  # a chunk that was cut short counts whole
        elif kind == b"EXIF":
            orientation = orientation_of(data[at + 8 : end])
    return b"".join([b"RIFF", struct.pack("<I", size), b"WEBP", *kept]), orientation


def _webp_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yields each chunk's kind, begin and end, which may lie behind the file's."""
    at = 12
    while at + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, at)
        end = at + 8 + length + length % 2
        yield kind, at, end
        at = end


def _tiff(data: bytes) -> tuple[bytes, int]:
    """Keeps the first image alone, by overwriting its directory in place."""
    try:
        order, entries, at = _tiff_entries(data)
        tags = [struct.unpack_from(f"{order}HHI", entry) for entry in entries]
    except (struct.error, ValueError):
        return data, UPRIGHT  # the decoder will refuse it
    about_pixels = [
        (entry, count) for (tag, _, count), entry in zip(tags, entries, strict=True) if _is_about_pixels(tag)
    ]
    if (most := max((count for _, count in about_pixels), default=0)) > MAX_PARTS:
        raise TooCostly(f"the limit is {MAX_PARTS} values of a TIFF's tag, as offsets of strips, the image has {most}")
    kept = [entry for entry, _ in about_pixels]
    directory = struct.pack(f"{order}H", len(kept)) + b"".join(kept) + bytes(4)
    if at + len(directory) > len(data):
        return data, UPRIGHT
    return data[:at] + directory + data[at + len(directory) :], orientation_of(data)


def _is_about_pixels(tag: int) -> bool:
    return tag in TIFF_LERC or (tag < 32768 and tag not in TIFF_DROPPED)


def _tiff_entries(tiff: bytes) -> tuple[str, list[bytes], int]:
    """Returns byte order, entries and place of the first directory. Raises struct.error, ValueError."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        raise ValueError("neither of TIFF's two byte orders")
    at = struct.unpack_from(f"{order}I", tiff, 4)[0]
    count = struct.unpack_from(f"{order}H", tiff, at)[0]
    entries = [tiff[begin : begin + 12] for begin in range(at + 2, at + 2 + 12 * count, 12)]
    return order, [entry for entry in entries if len(entry) == 12], at


def _heif(data: bytes) -> tuple[bytes, int]:
    """Hides EXIF. HEIF and AVIF have turns of their own, which decoders apply; EXIF's does not count.

    Raises TooCostly for an image that is laid together of others, each as large as it likes and as often as it likes.
    """
    if HEIF_OVERLAY.search(data):
        raise TooCostly("an HEIF image should be one picture, or one in tiles, this one is an overlay of several")
    begin = data.find(b"meta")
    if begin < 4:
        return data, UPRIGHT
    end = begin - 4 + int.from_bytes(data[begin - 4 : begin])
    return data[:begin] + HEIF_EXIF.sub(rb"\1skip", data[begin:end]) + data[end:], UPRIGHT


STRIPS: dict[bytes, Callable[[bytes], tuple[bytes, int]]] = {
    rb"\xff\xd8\xff": _jpeg,
    rb"\x89PNG\r\n\x1a\n": _png,
    rb"RIFF....WEBP": _webp,
    rb"II\*\0|MM\0\*": _tiff,
    rb"....ftyp": _heif,
}
