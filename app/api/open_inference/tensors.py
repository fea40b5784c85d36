"""Reads an inference request of the Open Inference Protocol from a body, and writes the response.

The protocol: github.com/kserve/open-inference-protocol; binary tensors and classification are Triton's extensions.
"""

import base64
import binascii
import math
import struct
from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import numpy as np
import pydantic_core
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from app.api.numbers import whole_number
from app.api.open_inference.long_json import read_json
from app.errors import InvalidRequest, MalformedBody
from training.contract.manifest import INPUT_NAME, OUTPUT_NAME

HEADER_LENGTH = "inference-header-content-length"
# a raw body with exactly as many bytes as the model's input is pixels, unless it begins like JPEG, PNG, GIF or WebP
SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF8", b"RIFF")

# each output is a tensor in the answer: without a limit, a small request could ask for an answer of any size
MAX_OUTPUTS = 16
MOST_DIMENSIONS = 8
MOST_ITEMS = 64  # in a list of inputs or outputs; each wrong one is a complaint
UINT64 = 2**64  # the protocol's numbers are below this; in JSON a number may have thousands of digits

Images = Sequence[bytes] | NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Requested:
    """One output that a request asks for: all probabilities, or the `classes` most likely classes.

    `binary` puts its data behind the JSON.
    """

    classes: int = 0
    binary: bool = False


@dataclass(frozen=True, slots=True)
class InferRequest:
    """A parsed request. `images` are encoded images, or uint8 [n, height, width, 3]; `timeout` is in seconds."""

    images: Images
    outputs: Sequence[Requested] = (Requested(),)
    id: str = ""
    timeout: float | None = None


@dataclass(frozen=True, slots=True)
class Output:
    """One output of the response: float32 [n, classes], or texts [n][k]."""

    values: NDArray[np.float32] | list[list[str]]

    @property
    def datatype(self) -> str:
        """The protocol's name of the datatype."""
        return "BYTES" if isinstance(self.values, list) else "FP32"

    @property
    def shape(self) -> list[int]:
        """The shape, [n, classes] or [n, k]."""
        return [len(self.values), len(self.values[0])]

    def raw(self) -> bytes:
        """Returns binary tensor data, little-endian; each text follows its length."""
        if isinstance(self.values, list):
            return pack_bytes([text.encode() for row in self.values for text in row])
        return self.values.astype("<f4", copy=False).tobytes()


class _Part(BaseModel):
    """An object of the request with $parameters. Unknown parameters are ignored, as Triton does."""

    model_config = ConfigDict(extra="ignore", strict=True)

    parameters: dict[str, Any] = {}  # Any: whatever a client has put there

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, value: Any) -> Any:  # Any: a validator's input is whatever came
        """Drops fields that are null: clients generated from a schema send null for what is not set."""
        return {k: v for k, v in value.items() if v is not None} if isinstance(value, dict) else value


class _Input(_Part):
    name: str
    shape: list[Annotated[int, Field(gt=-UINT64, lt=UINT64)]] = Field(max_length=MOST_DIMENSIONS)
    datatype: str
    data: Any = None  # Any: numbers nested to any depth, flat, or texts; an array where they were many


class _RequestedOutput(_Part):
    name: str


_Named = TypeVar("_Named", _Input, _RequestedOutput)


class _Body(_Part):
    id: str = ""
    inputs: list[_Input] = Field(min_length=1, max_length=MOST_ITEMS)
    outputs: list[_RequestedOutput] = Field([], max_length=MOST_ITEMS)


def read_request(body: bytes, header_length: str | None, shape: tuple[int, int, int]) -> InferRequest:
    """Parses a request's body. `header_length` is the header with the JSON's length, `shape` the shape of one image.

    With a `header_length` of 0 the body is one image and nothing else. Raises MalformedBody, InvalidRequest.
    """
    length = len(body) if header_length is None else _header_length(header_length, len(body))
    if header_length is not None and not length:
        return InferRequest(_raw_image(body, shape), (Requested(binary=True),))
    try:
        document, arrays = read_json(body[:length])
        request = _Body.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the body"
        what = "Input should be an object" if first["type"] == "model_type" else first["msg"]
        raise InvalidRequest(f"{where}: {what}") from None
    except ValueError as error:
        raise MalformedBody(f"the body should be JSON, its {length} bytes cannot be read: {error}") from None
    (item,) = named(request.inputs, INPUT_NAME, "input")
    if isinstance(item.data, str) and item.data in arrays:
        item.data = arrays[item.data]
    images = _images(item, memoryview(body)[length:], shape)
    binary = bool(request.parameters.get("binary_data_output"))
    asked = named(request.outputs, OUTPUT_NAME, "output")
    return InferRequest(
        images,
        [requested(item.parameters, binary) for item in asked] or [Requested(binary=binary)],
        request.id,
        timeout_of(request.parameters.get("timeout")),
    )


def write_response(
    name: str, version: int, request: InferRequest, outputs: Sequence[Output]
) -> tuple[bytes, int | None]:
    """Returns the body, and the length of its JSON when binary data follow, else None."""
    tail: list[bytes] = []
    described = []
    for asked, output in zip(request.outputs, outputs, strict=True):
        description: dict[str, object] = {"name": OUTPUT_NAME, "datatype": output.datatype, "shape": output.shape}
        if asked.binary:
            tail.append(output.raw())
            description["parameters"] = {"binary_data_size": len(tail[-1])}
        else:
            flat = [text for row in output.values for text in row] if isinstance(output.values, list) else None
            description["data"] = flat if flat is not None else np.asarray(output.values).ravel().tolist()
        described.append(description)
    head: dict[str, object] = {"model_name": name, "model_version": str(version), "outputs": described}
    if request.id:
        head["id"] = request.id
    text = pydantic_core.to_json(head)
    return b"".join([text, *tail]), len(text) if tail else None


def named(items: Sequence[_Named], name: str, kind: str) -> Sequence[_Named]:
    """Returns the items. Raises InvalidRequest for another name, an input that is not alone, or too many outputs."""
    for item in items:
        if item.name != name:
            raise InvalidRequest(f"unexpected inference {kind} {item.name!r}, the model has one: {name!r}")
    if kind == "input" and len(items) != 1:
        raise InvalidRequest(f"expected 1 input, {name!r}, got {len(items)} of that name")
    if len(items) > MAX_OUTPUTS:
        raise InvalidRequest(f"a request should ask for at most {MAX_OUTPUTS} outputs, got {len(items)}")
    return items


def requested(parameters: dict[str, Any], binary: bool = False) -> Requested:  # Any: JSON or protobuf values
    """Reads an output's parameters. Raises InvalidRequest."""
    classes = parameters.get("classification", 0)
    if isinstance(classes, bool) or not isinstance(classes, int) or classes < 0:
        raise InvalidRequest(f"'classification' should be a number of classes, got {classes!r}")
    refuse_shared_memory(parameters)
    return Requested(classes, bool(parameters.get("binary_data", binary)))


def refuse_shared_memory(parameters: Container[str]) -> None:
    """Raises InvalidRequest when the parameters of an input or an output name shared memory."""
    if "shared_memory_region" in parameters:
        raise InvalidRequest("shared memory is not supported, as `extensions` shows")


def timeout_of(microseconds: object) -> float | None:
    """Returns the request parameter `timeout` in seconds; None for 0. Raises InvalidRequest."""
    if microseconds is None or microseconds == 0:
        return None
    if isinstance(microseconds, bool) or not isinstance(microseconds, int) or not 0 <= microseconds < UINT64:
        raise InvalidRequest(f"'timeout' should be a number of microseconds, got {microseconds!r}")
    return microseconds / 1e6


def pixels(data: bytes | memoryview, shape: Sequence[int]) -> NDArray[np.uint8]:
    """Returns UINT8 tensor data in that shape, [n, height, width, 3]. Raises InvalidRequest."""
    if len(data) != math.prod(shape):
        raise InvalidRequest(
            f"input {INPUT_NAME!r} of shape {list(shape)} has {math.prod(shape)} bytes, got {len(data)}"
        )
    return np.frombuffer(data, np.uint8).reshape(shape)


def check_shape(shape: Sequence[int], image: tuple[int, int, int] | None) -> None:
    """Raises InvalidRequest unless the shape is [n, *image], or without `image` [n] or [n, 1], for encoded images."""
    expected = tuple(shape[1:]) == image if image else len(shape) == 1 or (len(shape) == 2 and shape[1] == 1)
    if not (expected and len(shape) and shape[0] > 0):
        wanted = f"[n, {', '.join(map(str, image))}] for UINT8" if image else "[n] for BYTES"
        came = list(shape[:MOST_DIMENSIONS])
        raise InvalidRequest(f"unexpected shape for input {INPUT_NAME!r}: expected {wanted}, got {came}")


def pack_bytes(items: Sequence[bytes]) -> bytes:
    """Returns BYTES tensor data: each item after its length."""
    return b"".join(part for item in items for part in (struct.pack("<I", len(item)), item))


def unpack_bytes(data: bytes | memoryview, n: int) -> list[bytes]:
    """Returns the n items of BYTES tensor data. Raises InvalidRequest."""
    items: list[bytes] = []
    at = 0
    while at + 4 <= len(data):
        (length,) = struct.unpack_from("<I", data, at)
        if at + 4 + length > len(data):
            break
        items.append(bytes(data[at + 4 : at + 4 + length]))
        at += 4 + length
    if at != len(data) or len(items) != n:
        raise InvalidRequest(
            f"input {INPUT_NAME!r} should be {n} byte strings, each after its length in 4 bytes; it has {len(items)}, "
            f"{len(data) - at} bytes are left over"
        )
    return items


def of_datatype(datatype: str) -> None:
    """Raises InvalidRequest for a datatype that cannot carry an image."""
    if datatype not in ("UINT8", "BYTES"):
        raise InvalidRequest(
            f"input {INPUT_NAME!r} should be UINT8, pixels, or BYTES, encoded images; its datatype is {datatype!r}"
        )


def _header_length(text: str, length: int) -> int:
    number = whole_number(text)
    if number is None or number > length:
        raise MalformedBody(f"{HEADER_LENGTH} should be a number of bytes up to the body's {length}, got {text[:40]!r}")
    return number


def _raw_image(body: bytes, shape: tuple[int, int, int]) -> Images:
    if len(body) == math.prod(shape) and not body.startswith(SIGNATURES):
        return np.frombuffer(body, np.uint8).reshape(1, *shape)
    return [body]


def _images(item: _Input, tail: memoryview, image: tuple[int, int, int]) -> Images:
    """Reads the input's images. `tail`, which follows the JSON, is the binary data of the one input, or empty.

    Raises MalformedBody, InvalidRequest.
    """
    of_datatype(item.datatype)
    refuse_shared_memory(item.parameters)
    size = item.parameters.get("binary_data_size")
    if (size or 0) != len(tail):
        raise MalformedBody(f"{len(tail)} bytes follow the JSON, 'binary_data_size' of input {item.name!r} is {size!r}")
    check_shape(item.shape, image if item.datatype == "UINT8" else None)
    if size is None:
        return _numbers(item) if item.datatype == "UINT8" else _texts(item)
    return pixels(tail, item.shape) if item.datatype == "UINT8" else unpack_bytes(tail, item.shape[0])


def _numbers(item: _Input) -> NDArray[np.uint8]:
    """Reads pixels from flat or nested numbers. Raises InvalidRequest; numpy alone would convert -1, 2.5 and 256."""
    try:
        array = np.asarray(item.data)
    except ValueError:  # rows of different lengths
        raise InvalidRequest(f"the data of input {INPUT_NAME!r} is ragged") from None
    if array.dtype.kind not in "iu" or array.size != math.prod(item.shape) or array.min() < 0 or array.max() > 255:
        raise InvalidRequest(
            f"the data of input {INPUT_NAME!r} should be {math.prod(item.shape)} whole numbers from 0 to 255"
        )
    return array.astype(np.uint8).reshape(item.shape)


def _texts(item: _Input) -> list[bytes]:
    """Reads encoded images from base64, since JSON has no bytes. Raises InvalidRequest."""
    texts = item.data if isinstance(item.data, list) else []
    texts = [text[0] if isinstance(text, list) and len(text) == 1 else text for text in texts]
    if len(texts) != item.shape[0]:
        raise InvalidRequest(f"the data of input {INPUT_NAME!r} should be {item.shape[0]} texts, got {len(texts)}")
    try:
        return [base64.b64decode(text, validate=True) for text in texts]
    except (TypeError, ValueError, binascii.Error) as error:
        raise InvalidRequest(f"the data of input {INPUT_NAME!r} should be base64 of encoded images: {error}") from None
