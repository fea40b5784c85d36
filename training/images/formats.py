"""The image formats that are read, and the names of other kinds of files for error messages."""

import re

from pi_heif import register_heif_opener  # type: ignore[import-untyped]  # it ships no types
from PIL import AvifImagePlugin, Image

# decoders run in threads that are already shared out; only the image itself is read
AvifImagePlugin.DEFAULT_MAX_THREADS = 1
register_heif_opener(decode_threads=1, thumbnails=False, depth_images=False, aux_images=False)

# all formats that Pillow reads, except EPS (it runs Ghostscript on the upload) and stubs that cannot decode
Image.init()
FORMATS = tuple(sorted(set(Image.OPEN) - {"EPS", "BUFR", "GRIB", "HDF5", "WMF", "MPEG"}))

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


def unread(data: bytes) -> str:
    """Returns a sentence that says what a file is that cannot be read as an image."""
    if not (found := _kind(data)):
        return f"the file is in no known image format; it starts {data[:16]!r}"
    name, advice = found
    if not advice:
        return f"the file begins as {name} does, but its header is damaged, cut short or of an unknown kind"
    return f"the file is {name}, which is not read here; {advice}"


def _kind(data: bytes) -> tuple[str, str] | None:
    begin = data[:LOOKED_AT]
    return next(((name, advice) for pattern, name, advice in KINDS if re.match(pattern, begin, re.DOTALL)), None)
