"""A request's body to its images, still encoded."""

import contextlib
import io
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import BinaryIO

from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from app.errors import MalformedBody, NoFile, TooManyFiles, UnsupportedBody, WrongField

FIELD = "file"
EXPECTED = (
    f"one or more multipart/form-data parts named {FIELD!r} (curl -F {FIELD}=@image.jpg), or one image as the body"
)


@dataclass(frozen=True, slots=True)
class Upload:
    """One image as it came. `filename` is None for a raw body."""

    filename: str | None
    file: BinaryIO


@contextlib.asynccontextmanager
async def read_uploads(request: Request, max_files: int) -> AsyncIterator[list[Upload]]:
    """The images of a request, at least one, in order; their temporary files live as long as the block.

    Raises MalformedBody, NoFile, TooManyFiles, UnsupportedBody, WrongField, and UploadTooLarge from the middleware.
    """
    media_type = parse_options_header(request.headers.get("content-type"))[0]
    if not media_type.startswith(b"multipart/"):
        # whatever it is called: `curl --data-binary` says application/x-www-form-urlencoded
        body = await request.body()
        if not body:
            raise NoFile(f"the body should be {EXPECTED}; it is empty")
        yield [Upload(None, io.BytesIO(body))]
    elif media_type != b"multipart/form-data":
        raise UnsupportedBody(f"the body should be {EXPECTED}; it is {media_type.decode('latin-1')}")
    else:
        form = await _parse(request, max_files)
        try:
            yield [_upload(name, value) for name, value in form.multi_items()] or _nothing()
        finally:
            await form.close()


class _Parser(MultiPartParser):
    """Starlette's, which takes a body that breaks off for a whole one, and counts files by their filename alone."""

    spool_max_size = 8 * 1024**2  # bytes in memory: a photo from a phone does not go through a file on disk

    def __init__(self, request: Request, max_files: int) -> None:
        super().__init__(request.headers, self._whole(request))
        self.limit = max_files
        self.parts = 0
        self.ended = False

    def on_part_begin(self) -> None:
        super().on_part_begin()
        self.parts += 1
        if self.parts > self.limit:
            raise TooManyFiles(f"a request should have at most {self.limit} files, this one has more")

    def on_end(self) -> None:
        self.ended = True

    async def _whole(self, request: Request) -> AsyncGenerator[bytes, None]:
        async with contextlib.aclosing(request.stream()) as chunks:
            async for chunk in chunks:
                yield chunk
        if not self.ended:  # raised here, within parse(), which then closes its temporary files
            raise MalformedBody("the multipart body should end with its closing boundary, it breaks off")


async def _parse(request: Request, max_files: int) -> FormData:
    parser = _Parser(request, max_files)
    async with contextlib.aclosing(parser.stream):
        try:
            return await parser.parse()
        except MultiPartException as error:
            raise MalformedBody(f"the multipart body can not be read: {error.message}") from None


def _upload(name: str, value: UploadFile | str) -> Upload:
    if name != FIELD:
        raise WrongField(f"the body should be {EXPECTED}; a part is named {name[:80]!r}")
    if isinstance(value, str):
        raise WrongField(f"the part {FIELD!r} should be a file (with a filename), it came as text: {value[:40]!r}")
    return Upload(value.filename, value.file)


def _nothing() -> list[Upload]:
    raise NoFile(f"the body should be {EXPECTED}; it has no parts")
