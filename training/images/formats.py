"""The image formats that are read, and the names of other kinds of files for error messages.

EPS is never read (Pillow runs Ghostscript on the upload), nor are stubs that cannot decode: `training.environment` does
not name them.
"""

import functools
import re

from pi_heif import register_heif_opener  # type: ignore[import-untyped]  # it ships no types
from PIL import AvifImagePlugin, Image

from training.environment import FORMATS, RARE_FORMATS

# decoders run in threads that are already shared out; only the image itself is read
AvifImagePlugin.DEFAULT_MAX_THREADS = 1
register_heif_opener(decode_threads=1, thumbnails=False, depth_images=False, aux_images=False)

Image.init()
CODECS = {"bmp_rle": "BMP-RLE", "ppm_plain": "PPM-PLAIN", "ppm": "PPM-PLAIN"}  # kinds of a format by their decoder
BIG_TIFF = (b"II+\0", b"MM\0+")

EXPORT = "export it as JPEG or PNG"
UNPACK = "unpack it"
FRAME = "export its frames as JPEG or PNG"
# pattern of a file's first bytes, name of its kind, advice (empty for a format that is read); the first match counts
KINDS: tuple[tuple[bytes, str, str], ...] = (
    (rb"\xff\xd8\xff", "JPEG", ""),
    (rb"\x89PNG\r\n", "PNG", ""),
    (rb"GIF8[79]a", "GIF", ""),
    (rb"RIFF....WEBP", "WebP", ""),
    (rb"....ftyp(?:avif|avis)", "AVIF", ""),
    (rb"....ftyp(?:hei[cxms]|hev[cxms]|mif1|msf1)", "HEIF", ""),
    (rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51", "JPEG 2000", ""),
    (rb"8BPS\0\x01", "PSD", ""),
    (rb"\xff\x0a|\0\0\0\x0cJXL ", "a JPEG XL image", EXPORT),
    (
        rb"....ftypcrx |HEAPCCDR|FUJIFILMCCD-RAW|II(?:RO|RS|U\0)|MMOR|FOVb|\0MRM|II\*\0....CR",
        "a camera's raw file",
        EXPORT,
    ),
    (rb"II\*\0|MM\0\*|II\+\0|MM\0\+", "TIFF", ""),
    (rb"....ftyp|....(?:moov|mdat|wide|free)", "a video (MP4, MOV or the like)", FRAME),
    (rb"\x1aE\xdf\xa3|OggS|FLV\x01|\0\0\x01[\xb3\xba]|RIFF....AVI ", "a video", FRAME),
    (rb"RIFF....WAVE|ID3|fLaC", "a sound", "take it out"),
    (rb"\s*%PDF-", "a PDF", EXPORT),
    (rb"\s*%!|\xc5\xd0\xd3\xc6", "PostScript (PS, EPS)", EXPORT),
    (rb"\xd7\xcd\xc6\x9a|\x01\0\0\0.{36} EMF", "a Windows metafile", EXPORT),
    (rb"8BPS\0\x02", "a large Photoshop document (PSB)", EXPORT),
    (rb"gimp xcf", "a GIMP image (XCF)", EXPORT),
    (rb"v/1\x01", "an OpenEXR image", EXPORT),
    (rb"#\?(?:RADIANCE|RGBE)", "a Radiance HDR image", EXPORT),
    (rb"AT&TFORM", "DjVu", EXPORT),
    (rb".{128}DICM", "a DICOM image", EXPORT),
    (rb"BPG\xfb", "a BPG image", EXPORT),
    (rb"version https://git-lfs\.github\.com/spec/", "a Git LFS pointer", "fetch the picture with `git lfs pull`"),
    (rb"\0\x05\x16[\0\x07]", "macOS's notes about a file (AppleDouble)", "take it out"),
    (rb"PK\x03\x04|PK\x05\x06", "a zip archive or a document made of one", UNPACK),
    (rb"\x1f\x8b", "a gzip file", UNPACK),
    (rb"BZh[1-9]|\xfd7zXZ\0|7z\xbc\xaf|Rar!|\x28\xb5\x2f\xfd|.{257}ustar", "an archive, or compressed", UNPACK),
    (rb"\xd0\xcf\x11\xe0", "an Office document or Thumbs.db", "take it out"),
    (rb"\x93NUMPY|\x89HDF\r\n", "an array (NumPy, HDF5)", EXPORT),
    (rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml.{,2000}|<!--.{,2000}|<!DOCTYPE svg.{,500})?<svg[\s>]", "an SVG drawing", EXPORT),
    (
        rb"(?i:(?:\xef\xbb\xbf)?\s*(?:<!--.{,2000}-->\s*)?<(?:!doctype html|html|head|body))",
        "an HTML page",
        "fetch the picture itself",
    ),
    (rb"(?:\xef\xbb\xbf)?\s*<\?xml", "XML", "take it out"),
)
LOOKED_AT = 4096  # bytes


def name_of(data: bytes) -> str | None:
    """Returns the format that the file begins as, if it is one that is read here."""
    found = _kind(data)
    return found[0] if found and not found[1] else None


@functools.lru_cache
def openers(formats: str) -> tuple[str, ...]:
    """Returns which of Pillow's parsers are tried, by RESNEXT_FORMATS. Some builds of Pillow lack one."""
    families = {kind.partition("-")[0].replace("BIGTIFF", "TIFF") for kind in formats.split(",")}
    return tuple(sorted(families & set(Image.OPEN)))


def kind_of(image: Image.Image, data: bytes) -> str:
    """Returns the name in RESNEXT_FORMATS of an opened image of these bytes."""
    if data.startswith(BIG_TIFF):
        return "BIGTIFF"
    codecs = [CODECS[tile.codec_name] for tile in getattr(image, "tile", ()) if tile.codec_name in CODECS]
    # Pillow takes a JPEG for an MPO where several lie in one file
    return codecs[0] if codecs else (image.format or "").upper().replace("MPO", "JPEG")


def not_named(kind: str) -> str:
    """Returns a sentence about a file of a format that RESNEXT_FORMATS does not name."""
    return f"the file is {kind}, which is read only where RESNEXT_FORMATS names it; {EXPORT}"


def unread(data: bytes, formats: str) -> str:
    """Returns a sentence that says what a file is that cannot be read as an image of one of these formats."""
    name, advice = _kind(data) or ("", "")
    if advice:
        return f"the file is {name}, which is not read here; {advice}"
    if others := [
        other for other in RARE_FORMATS + FORMATS if other not in formats.split(",") and _begins(data, other)
    ]:
        return not_named(others[0])
    if name:
        return f"the file begins as {name} does, but its header is damaged, cut short or of an unknown kind"
    return f"the file is in no known image format; it starts {data[:16]!r}"


def _begins(data: bytes, format: str) -> bool:
    """Whether a file has the first bytes of a format. Some formats have none of their own."""
    _, accept = Image.OPEN.get(format, (None, None))
    return accept is not None and accept(data[:16].ljust(16, b"\0")) is True


def _kind(data: bytes) -> tuple[str, str] | None:
    begin = data[:LOOKED_AT]
    return next(((name, advice) for pattern, name, advice in KINDS if re.match(pattern, begin, re.DOTALL)), None)
