"""Messages beside protobuf's own parser."""

from typing import Any

import pytest
from google.protobuf.message import DecodeError
from tritonclient.grpc import service_pb2

from app.api.open_inference.fields import MOST_FIELDS, SHORT_BYTES, with_few_fields

parse = with_few_fields(service_pb2.ModelInferRequest.FromString)
MANY = MOST_FIELDS + SHORT_BYTES  # empty fields, two bytes each


def message() -> Any:  # Any: protobuf's classes have no types
    asked = service_pb2.ModelInferRequest(model_name="resnext50", id="7")
    asked.parameters["timeout"].int64_param = 2**62
    asked.inputs.add(name="image", datatype="UINT8", shape=[1, 300, 300, 3])
    asked.outputs.add(name="probabilities").parameters["classification"].int64_param = 3
    return asked


def field(number: int, content: bytes) -> bytes:
    """Returns a field of bytes: its tag, its length, its content."""
    length, size = b"", len(content)
    while size > 127:
        length += bytes([size & 127 | 128])
        size >>= 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + content


def test_a_long_message_of_few_fields_is_parsed_as_it_is() -> None:
    raw, numbers, files = message(), message(), message()
    raw.raw_input_contents.append(bytes(270_000))
    numbers.inputs[0].contents.uint_contents.extend([200] * 270_000)
    files.inputs[0].contents.bytes_contents.extend([bytes(50_000)] * 64)
    for asked in (raw, numbers, files):
        assert parse(asked.SerializeToString()) == asked


@pytest.mark.parametrize(
    "data",
    [
        field(5, b"") * MANY,  # inputs
        field(6, b"") * MANY,  # outputs
        field(7, b"") * MANY,  # raw contents
        field(4, b"") * MANY,  # parameters
        field(5, field(4, b"") * MANY),  # parameters of an input
        field(5, field(5, field(8, b"") * MANY)),  # encoded images of an input
        field(5, field(5, b"\x20\x01" * MANY)),  # pixels of an input, each a field
        field(6, field(2, b"") * MANY),  # parameters of an output
        field(99 >> 3, b"") * MANY,  # of a field that there is not
    ],
)
def test_a_message_of_many_fields_is_not_parsed(data: bytes) -> None:
    assert len(data) > SHORT_BYTES
    with pytest.raises(DecodeError, match="at most 10000 fields"):
        parse(data)


@pytest.mark.parametrize("data", [b"\x3a\xff\xff\xff\x7f", b"\xff" * 20, b"\x3b", b"\x3a"])
def test_a_message_that_cannot_be_read_is_refused(data: bytes) -> None:
    with pytest.raises(DecodeError):
        parse(field(7, bytes(SHORT_BYTES)) + data)
