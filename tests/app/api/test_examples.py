"""The examples are what the service answers, and what it accepts."""

from typing import Any

from app.api.examples import DATASET, DATASETS, ERRORS, PREDICTED, TRAININGS
from app.api.schemas import DatasetDetail, DatasetList, PredictResponse, TrainRequest
from app.errors import status_and_code
from app.main import create_app
from app.settings import Settings
from tests.app.world import every_error

SCHEMA = create_app(Settings(provider="cpu")).openapi()
OPERATIONS: dict[tuple[str, str], dict[str, Any]] = {  # Any: JSON
    (method, path): operation for path, methods in SCHEMA["paths"].items() for method, operation in methods.items()
}


def test_answers_are_what_their_models_make() -> None:
    for model, example in ((PredictResponse, PREDICTED), (DatasetList, DATASETS), (DatasetDetail, DATASET)):
        assert model.model_validate(example).model_dump(mode="json", exclude_unset=True) == example
    for method, path, status, example in (
        ("post", "/predict", "200", PREDICTED),
        ("get", "/datasets", "200", DATASETS),
        ("get", "/datasets/{name}", "200", DATASET),
        ("put", "/datasets/{name}", "201", DATASET),
    ):
        assert OPERATIONS[method, path]["responses"][status]["content"]["application/json"]["example"] == example


def test_a_training_to_try_out_has_few_fields_and_would_be_taken() -> None:
    examples = OPERATIONS["post", "/train"]["requestBody"]["content"]["application/json"]["examples"]
    assert examples == TRAININGS
    assert 3 < len(next(iter(examples.values()))["value"]) < 6
    for example in examples.values():
        TrainRequest.model_validate(example["value"])


def test_every_error_is_shown_as_it_is_answered() -> None:
    assert {status_and_code(error)[1] for error in every_error()} == ERRORS.keys()
    for (method, path), operation in OPERATIONS.items():
        for status, response in operation["responses"].items():
            if int(status) < 400:
                continue
            (content,) = response["content"].values()
            assert content["examples"], (method, path, status)
            for code, example in content["examples"].items():
                assert f"`{code}`" in response["description"]
                shown = example["value"]
                assert shown == {"error": ERRORS[code]} or (str(shown["status"]), shown["code"]) == (status, code)
