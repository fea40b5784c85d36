"""Published weights: the network answers as PyTorch does, and gives back what it took."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.training.network import published
from tests.training.network.small import SIZE_32, SMALL
from tests.training.weights.files import parameters
from training.contract.architecture import Architecture
from training.contract.manifest import Preprocessing
from training.network import published_weights, resnext
from training.network.published_weights import PublishedWeightsError, load_published, tensors_of
from training.network.runtime import keras
from training.weights.layout import architecture_of
from training.weights.tensors import COUNTER, open_tensors, write_tensors

TOLERANCE = 1e-3  # float32 of two libraries differs by 1e-4; a wrong import by more than 1


def imported(*, exported: bool = False) -> keras.Model:
    """Returns the network with the file's weights, as a training or as an export builds it."""
    _, height, width, _ = published.photo().shape
    with open_tensors(published.FILE) as tensors:
        architecture, classes = architecture_of(tensors.shapes, "small")
        preprocessing = Preprocessing(height=height, width=width)
        model = resnext.build(architecture, preprocessing, classes, exported=exported)
        load_published(model, tensors)
    return model


def first_difference(model: keras.Model, image: NDArray[np.uint8]) -> str | None:
    """Returns the name of the first block whose channels have other means than in PyTorch, or `logits`."""
    logits, blocks = published.answers()
    probe = keras.Model(model.input, [*(model.get_layer(f"{name}_relu3").output for name in blocks), model.output])
    *outputs, ours = [np.asarray(output) for output in probe(image, training=False)]
    for (name, expected), output in zip(blocks.items(), outputs, strict=True):
        if not np.abs(output[0].mean(axis=(0, 1)) - expected).max() <= TOLERANCE:  # false for NaN as well
            return name
    return None if np.abs(ours[0] - logits).max() <= TOLERANCE else "logits"


@pytest.mark.parametrize("exported", [False, True])
def test_the_network_answers_as_pytorch_does_block_by_block(exported: bool) -> None:
    assert first_difference(imported(exported=exported), published.photo()) is None


def test_the_file_tells_the_architecture() -> None:
    with open_tensors(published.FILE) as tensors:
        found = architecture_of(tensors.shapes, "small")
    assert found == (Architecture(depths=(2, 1, 1, 1), cardinality=2, base_width=1, stem_width=4), 10)


def test_blue_in_the_place_of_red_is_seen_at_once() -> None:
    assert first_difference(imported(), published.photo()[..., ::-1]) == "stage1_block1"


@pytest.mark.parametrize(
    ("target", "name", "value"),
    [
        (published_weights, "HWIO_OF_OIHW", (3, 2, 1, 0)),
        (resnext, "BATCH_NORM", resnext.BATCH_NORM | {"epsilon": 1e-3}),
        (published_weights, "NORM_PARTS", ("weight", "bias", "running_var", "running_mean")),
    ],
)
def test_a_wrong_import_is_seen(monkeypatch: pytest.MonkeyPatch, target: object, name: str, value: object) -> None:
    """Height and width of the kernels exchanged, Keras' own epsilon, mean for variance: no shape shows any of them."""
    monkeypatch.setattr(target, name, value)
    assert first_difference(imported(), published.photo()) == "stage1_block1"


def test_weights_that_go_out_are_those_that_came_in(tmp_path: Path) -> None:
    tensors = tensors_of(imported())
    write_tensors(tmp_path / "f", tensors)
    with open_tensors(tmp_path / "f") as written, open_tensors(published.FILE) as original:
        assert written.shapes == original.shapes
        for name in original:
            np.testing.assert_array_equal(written[name], original[name])
    counters = {name: values for name, values in tensors.items() if name.endswith(COUNTER)}
    assert len(counters) == sum(name.endswith("running_var") for name in tensors)
    assert {(values.dtype.str, values.shape, int(values)) for values in counters.values()} == {("<i8", (), 0)}


def test_without_the_head_the_last_layer_stays() -> None:
    model = resnext.build(SMALL, SIZE_32, classes=5)
    before = model.get_layer("logits").get_weights()
    theirs = parameters(SMALL, classes=3)
    load_published(model, theirs, head=False)
    for ours, kept in zip(model.get_layer("logits").get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, kept)
    np.testing.assert_array_equal(model.get_layer("stem_norm").get_weights()[3], theirs["bn1.running_var"])
    with pytest.raises(PublishedWeightsError, match=r"logits .* should get \(128, 5\), fc\.weight gives \(128, 3\)"):
        load_published(model, theirs)


def test_tensors_that_are_missing_or_have_no_layer_are_named() -> None:
    model = resnext.build(SMALL, SIZE_32, classes=3)
    theirs = parameters(SMALL)
    without = {name: values for name, values in theirs.items() if name != "layer1.0.bn2.running_var"}
    with pytest.raises(PublishedWeightsError, match=r"stage1_block1_norm2 .* needs 'layer1.0.bn2.running_var'"):
        load_published(model, without)
    with pytest.raises(PublishedWeightsError, match=r"the network has no layer for 'layer1.1.conv1.weight'"):
        load_published(model, theirs | {"layer1.1.conv1.weight": np.zeros(1, np.float32)})


def test_a_layer_that_torchvision_does_not_have_has_no_name_there() -> None:
    image = keras.Input((8,))
    model = keras.Model(image, keras.layers.Dense(2, name="another")(image))
    with pytest.raises(PublishedWeightsError, match=r"no layer like 'another'"):
        tensors_of(model)
