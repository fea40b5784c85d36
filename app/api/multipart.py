"""Splits a multipart/form-data body (RFC 7578, RFC 2046) into its parts, in the dialects that clients speak.

python-multipart's push parser accepts neither a preamble nor a folded header, and ignores `filename*`. Starlette's form
parser is built on it, and also accepts a body that breaks off as complete.
"""

import base64
import quopri
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.message import Message
from email.utils import collapse_rfc2231_value

from python_multipart.multipart import parse_options_header

from app.errors import MalformedBody

BOUNDARY_BYTES = 256  # the longest; RFC 2046 allows 70
HEAD_BYTES = 16 * 1024  # most bytes in the headers of one part
ENCODINGS: dict[bytes, Callable[[bytes], bytes]] = {
    **dict.fromkeys((b"", b"7bit", b"8bit", b"binary"), bytes),  # unchanged; `bytes` copies nothing
    b"base64": base64.b64decode,
    b"quoted-printable": quopri.decodestring,
}
FILE_TYPES = (b"image/", b"application/octet-stream")  # a part of such a type is a file even without a filename

_end_of_delimiter = re.compile(rb"(--)|[ \t]*(\r?\n)")  # RFC 2046 allows gateways to add blanks
_fold = re.compile(rb"\r?\n(?=[ \t])")

Headers = dict[bytes, bytes]  # names in lower case


@dataclass(frozen=True, slots=True)
class Part:
    """One part. Its headers decide `is_file`; `content` has its transfer encoding removed."""

    name: str
    filename: str | None
    is_file: bool
    content: bytes


def read_parts(body: bytes, boundary: bytes) -> Iterator[Part]:
    """Yields the parts in order. Skips whatever is before the first boundary and after the last.

    Raises MalformedBody.
    """
    if not 0 < len(boundary) <= BOUNDARY_BYTES:
        raise MalformedBody(f"a boundary should have 1 to {BOUNDARY_BYTES} bytes, this one has {len(boundary)}")
    delimiter = b"--" + boundary
    at = 0 if body.startswith(delimiter) else body.find(b"\n" + delimiter) + 1
    if not body.startswith(delimiter, at):
        raise MalformedBody(
            f"the multipart body cannot be read: it breaks off before a line with its boundary, {text_of(delimiter)!r}"
        )
    end = _delimiter_end(body, at + len(delimiter))
    newline = end[2] or b""  # clients that end lines with LF alone do so throughout
    delimiter = newline + delimiter
    while not end[1]:
        start = end.end()
        at = body.find(delimiter, start - len(newline))  # a part may be empty
        if at < 0:
            raise MalformedBody("the multipart body should end with its closing boundary, it breaks off")
        yield _part(body, start, at, newline)
        end = _delimiter_end(body, at + len(delimiter))


def text_of(raw: bytes) -> str:
    """Decodes UTF-8, as RFC 7578 asks for, or Latin-1 where a client sends something else."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def _delimiter_end(body: bytes, at: int) -> re.Match[bytes]:
    if end := _end_of_delimiter.match(body, at):
        return end
    raise MalformedBody(
        "the multipart body cannot be read: its boundary should be followed by the end of the line or by --; the body "
        "breaks off there, or goes on with something else"
    )


def _part(body: bytes, start: int, end: int, newline: bytes) -> Part:
    blank = body.find(2 * newline, start - len(newline), min(end + len(newline), start + HEAD_BYTES))
    if blank < 0:
        raise MalformedBody(f"a part should begin with its headers, at most {HEAD_BYTES} bytes, and an empty line")
    headers = _headers(body[start:blank])
    disposition = headers.get(b"content-disposition", b"")
    options = parse_options_header(disposition)[1]
    name = _parameter(disposition, options, "name")
    if name is None:
        raise MalformedBody("a part's Content-Disposition should have a name, it has none")
    filename = _parameter(disposition, options, "filename")
    is_file = filename is not None or headers.get(b"content-type", b"").lower().startswith(FILE_TYPES)
    encoding = headers.get(b"content-transfer-encoding", b"")
    return Part(name, filename, is_file, _decoded(body[blank + 2 * len(newline) : end], encoding, name))


def _headers(head: bytes) -> Headers:
    headers = {}
    for line in _fold.sub(b"", head).splitlines():
        name, _, value = line.partition(b":")
        headers[name.strip().lower()] = value.strip()
    return headers


def _parameter(disposition: bytes, options: dict[bytes, bytes], name: str) -> str | None:
    """Returns a parameter of a Content-Disposition: the plain one, else that of RFC 2231 (name*=utf-8''%E7%8C%AB)."""
    if (plain := options.get(name.encode())) is not None:
        return text_of(plain)
    if b"*" not in disposition:
        return None
    message = Message()
    message["Content-Disposition"] = disposition.decode("latin-1")
    try:
        value = message.get_param(name, header="Content-Disposition")
        if isinstance(value, tuple):
            # some charsets can name half a character, which no answer can carry
            return collapse_rfc2231_value(value, fallback_charset="utf-8").encode(errors="replace").decode()
    except ValueError as error:  # a bad charset, or a bad number of a piece
        raise MalformedBody(f"the {name}* of a part's Content-Disposition cannot be read: {error}") from None
    return None if value is None else text_of(value.encode("latin-1"))


def _decoded(content: bytes, encoding: bytes, name: str) -> bytes:
    decode = ENCODINGS.get(encoding.lower())
    if decode is None:
        known = ", ".join(text_of(known) for known in ENCODINGS if known)
        raise MalformedBody(
            f"the Content-Transfer-Encoding of the part {name[:80]!r} should be one of {known}, "
            f"it is {text_of(encoding)[:40]!r}"
        )
    try:
        return decode(content)
    except ValueError as error:
        raise MalformedBody(f"the part {name[:80]!r} should be {text_of(encoding)}: {error}") from None
