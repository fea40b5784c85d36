"""A request's body to its images, still encoded."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from app.errors import MalformedBody, NoFile, TooManyFiles, UnsupportedBody, WrongField

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks  # it exists for type checkers alone

FIELD = "file"
EXPECTED = (
    f"one or more multipart/form-data parts named {FIELD!r} (curl -F {FIELD}=@image.jpg), or one image as the body"
)


@dataclass(frozen=True, slots=True)
class Upload:
    """One image as it came. `filename` is None for a raw body."""

    filename: str | None
    data: bytes


async def read_uploads(request: Request, max_files: int) -> list[Upload]:
    """The images of a request, at least one, in order; all in memory, of which the middleware bounds the size.

    Raises MalformedBody, NoFile, TooManyFiles, UnsupportedBody, WrongField, and UploadTooLarge from the middleware.
    """
    media_type, options = parse_options_header(request.headers.get("content-type"))
    if not media_type.startswith(b"multipart/"):
        # whatever it is called: `curl --data-binary` says application/x-www-form-urlencoded
        body = await request.body()
        if not body:
            raise NoFile(f"the body should be {EXPECTED}; it is empty")
        return [Upload(None, body)]
    if media_type != b"multipart/form-data":
        raise UnsupportedBody(f"the body should be {EXPECTED}; it is {media_type.decode('latin-1')}")
    if b"boundary" not in options:
        raise MalformedBody("a multipart body's content type should name its boundary, it names none")
    form = _Form(max_files)
    try:
        parser = MultipartParser(options[b"boundary"], form.callbacks())
        async for chunk in request.stream():
            parser.write(chunk)
        parser.finalize()
    except FormParserError as error:
        raise MalformedBody(f"the multipart body can not be read: {error}") from None
    if not form.ended:
        raise MalformedBody("the multipart body should end with its closing boundary, it breaks off")
    if not form.uploads:
        raise NoFile(f"the body should be {EXPECTED}; it has no parts")
    return form.uploads


class _Form:
    """What python-multipart's push parser calls, in this order for each part: begin, headers, data, end.

    Starlette's own form parser takes a third longer and hands each file to a temporary one; it also takes a body that
    breaks off for a whole one, and counts files by their filename alone.
    """

    def __init__(self, max_files: int) -> None:
        self.uploads: list[Upload] = []
        self.ended = False
        self._limit = max_files
        self._parts = 0

    def callbacks(self) -> "MultipartCallbacks":
        """As `MultipartParser` takes them."""
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._header_name,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_end,
            "on_part_data": self._data,
            "on_part_end": self._end,
            "on_end": self._finish,
        }

    def _begin(self) -> None:
        self._parts += 1
        if self._parts > self._limit:
            raise TooManyFiles(f"a request should have at most {self._limit} files, this one has more")
        self._name = self._value = self._disposition = b""
        self._content: list[bytes] = []

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._name.lower() == b"content-disposition":
            self._disposition = self._value
        self._name = self._value = b""

    def _headers_end(self) -> None:
        options = parse_options_header(self._disposition)[1]
        if b"name" not in options:
            raise MalformedBody("a part's Content-Disposition should have a name, it has none")
        if (name := _text(options[b"name"])) != FIELD:
            raise WrongField(f"the body should be {EXPECTED}; a part is named {name[:80]!r}")
        filename = options.get(b"filename")
        self._filename = None if filename is None else _text(filename)

    def _data(self, data: bytes, start: int, end: int) -> None:
        self._content.append(data[start:end])

    def _end(self) -> None:
        content = b"".join(self._content)
        if self._filename is None:
            raise WrongField(
                f"the part {FIELD!r} should be a file (with a filename), it came as text: {_text(content[:40])!r}"
            )
        self.uploads.append(Upload(self._filename, content))

    def _finish(self) -> None:
        self.ended = True


def _text(raw: bytes) -> str:
    """UTF-8 as RFC 7578 has it; Latin-1 of clients that send something else."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")
