"""Bodies of every wrong kind."""

from collections.abc import Iterator

import pytest
from pydantic import BaseModel, ValidationError

from app.api.schemas import TrainRequest
from training.config import TrainConfig

Path = tuple[str, ...]

VALUES: list[object] = [
    *(
        None,
        True,
        0,
        -1,
        1.5,
        10**400,
        -(10**400),
        float("nan"),
        float("inf"),
        "",
        "x",
        "1e3",
        "\ud800",
        "a\x00",
        "9" * 5000,
    ),
    *([], [1], ["x"], [[]], [None], [{"a": []}], {}, {"x": 1}, {"\ud800": 1}, {"zoom": []}),
]


def paths(model: type[BaseModel], above: Path = ()) -> Iterator[Path]:
    for name, field in model.model_fields.items():
        yield (*above, name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from paths(field.annotation, (*above, name))


@pytest.mark.parametrize("preset", [{}, {"recipe": "few"}, {"recipe": "modern"}, {"augment": "none"}])
def test_a_value_of_any_kind_in_any_field_is_taken_or_refused(preset: dict[str, object]) -> None:
    for path in paths(TrainRequest):
        for value in VALUES:
            body: dict[str, object] = {"data": "photos", **preset}
            place = body
            for name in path[:-1]:
                inner: dict[str, object] = {}
                place[name] = inner
                place = inner
            place[path[-1]] = value
            try:
                wanted = TrainRequest.model_validate(body).model_dump(exclude_unset=True, exclude_none=True)
                TrainConfig.model_validate(wanted)
            except ValidationError as error:
                assert error.errors()  # noqa: PT017  any other exception fails the test
