"""Reads the images of a request's body, still encoded."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from python_multipart.multipart import parse_options_header
from starlette.requests import Request

from app.api.multipart import Part, read_parts, text_of
from app.errors import MalformedBody, NoFile, TooManyFiles, UnsupportedBody, WrongField

FIELD = "file"
FIELDS = (FIELD, f"{FIELD}[]")  # forms for PHP and Rails use the second name for a field with several files
MAX_TEXT_FIELDS = 64
EXPECTED = (
    f"one or more multipart/form-data parts named {FIELD!r} (curl -F {FIELD}=@image.jpg), or one image as the body"
)


@dataclass(frozen=True, slots=True)
class Upload:
    """One image as it was sent. `filename` is None for a raw body."""

    filename: str | None
    data: bytes


@dataclass(frozen=True, slots=True)
class Form:
    """The images of a request, at least one, in order, and its text fields. Of fields with one name the last counts."""

    uploads: list[Upload]
    fields: Mapping[str, str]


async def read_form(request: Request, max_files: int) -> Form:
    """Reads a request's body into memory; the middleware bounds its size.

    Raises MalformedBody, NoFile, TooManyFiles, UnsupportedBody, WrongField, and UploadTooLarge from the middleware.
    """
    media_type, options = parse_options_header(request.headers.get("content-type"))
    if not media_type.startswith(b"multipart/"):
        # of any content type: `curl --data-binary` sends application/x-www-form-urlencoded
        body = await request.body()
        if not body:
            raise NoFile(f"the body should be {EXPECTED}; it is empty")
        return Form([Upload(None, body)], {})
    if media_type != b"multipart/form-data":
        raise UnsupportedBody(f"the body should be {EXPECTED}; it is {media_type.decode('latin-1')}")
    if b"boundary" not in options:
        raise MalformedBody("a multipart body's content type should name its boundary, it names none")
    return _form(read_parts(await request.body(), options[b"boundary"]), max_files)


def _form(parts: Iterator[Part], max_files: int) -> Form:
    uploads: list[Upload] = []
    fields: dict[str, str] = {}
    texts, empty = 0, False
    for part in parts:
        if part.filename == "" and not part.content:
            empty = True  # a browser sends this for a field in which no file was chosen
        elif _is_upload(part):
            uploads.append(Upload(part.filename, part.content))
        else:
            texts += 1
            fields[part.name] = text_of(part.content)
        if len(uploads) > max_files:
            raise TooManyFiles(f"a request should have at most {max_files} files, this one has more")
        if texts > MAX_TEXT_FIELDS:
            raise TooManyFiles(f"a request should have at most {MAX_TEXT_FIELDS} text fields, this one has more")
    if not uploads:
        raise NoFile(f"the body should be {EXPECTED}; {_without_files(fields, empty)}")
    return Form(uploads, fields)


def _without_files(fields: Mapping[str, str], empty: bool) -> str:
    if empty:
        return "no file was chosen in its file field"
    return f"it has only the text fields {', '.join(map(repr, fields))[:200]}" if fields else "it has no parts"


def _is_upload(part: Part) -> bool:
    """Raises WrongField for a file in another field, and for text where the file should be."""
    if part.is_file and part.name not in FIELDS:
        raise WrongField(f"the body should be {EXPECTED}; a part is named {part.name[:80]!r}")
    if part.name in FIELDS and not part.is_file:
        raise WrongField(
            f"the part {part.name!r} should be a file (with a filename), it came as text: {_shown(part.content)}"
        )
    return part.is_file


def _shown(content: bytes) -> str:
    """Returns the beginning of a text, or the length of anything else."""
    text = content[:40].decode(errors="ignore")
    is_text = all(character.isprintable() or character.isspace() for character in text)
    return repr(text) if is_text else f"{len(content)} bytes that are not text"
