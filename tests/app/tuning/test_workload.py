import io
import threading

import numpy as np
import pytest
from PIL import Image

from app.errors import InferenceFailed
from app.execution.loading import load_model
from app.execution.model import Model
from app.execution.session import Execution
from app.tuning.recommendation import Candidate
from app.tuning.workload import drive, photos
from tests.app.network import network, publish
from training.contract.repository import ModelRepository

CANDIDATE = Candidate("fp32", 1, 2, 1, auto_batch=1)


@pytest.fixture
def model(repository: ModelRepository) -> Model:
    return load_model(repository, publish(repository), Execution(), "fp32", max_batch=4, limit=4)


def test_photos_are_jpegs_of_the_size_and_differ() -> None:
    made = photos(640, 480)
    opened = [Image.open(io.BytesIO(photo)) for photo in made]
    assert {(image.format, image.mode, image.size) for image in opened} == {("JPEG", "RGB", (640, 480))}
    assert len(set(made)) == len(made)
    assert np.asarray(opened[0]).std() > 20  # not a plain one, which would decode too fast


@pytest.mark.parametrize("clients", [1, 3])
def test_load_is_of_more_than_one_image_of_each_client(model: Model, clients: int) -> None:
    load = drive(photos(32, 24), model, CANDIDATE, 0, clients, seconds=0)
    assert load.rate > 0
    assert len(load.latencies) > clients
    assert min(load.latencies) > 0
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("inference")]


def test_model_that_fails_ends_it(repository: ModelRepository) -> None:
    blank = Image.new("RGB", (16, 16), "white")  # the fragile network fails on a 255
    file = io.BytesIO()
    blank.save(file, "PNG")
    version = publish(repository, model=network(fragile=True))
    fragile = load_model(repository, version, Execution(), "fp32", max_batch=1, limit=4)
    with pytest.raises(InferenceFailed):
        drive([file.getvalue()], fragile, CANDIDATE, 0, 2, seconds=5)
