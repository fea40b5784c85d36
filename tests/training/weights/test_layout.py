import numpy as np
import pytest

from tests.training.weights.files import TINY, parameters
from training.contract.architecture import Architecture
from training.weights.layout import LayoutError, architecture_of, expected_shapes

RESNEXT101_32X8D = Architecture(depths=(3, 4, 23, 3), cardinality=32, base_width=8)
RESNET50 = Architecture(cardinality=1, base_width=64)
WIDE_RESNET50_2 = Architecture(cardinality=1, base_width=128)


@pytest.mark.parametrize("architecture", [Architecture(), RESNEXT101_32X8D, RESNET50, WIDE_RESNET50_2, TINY])
def test_names_and_shapes_tell_the_architecture(architecture: Architecture) -> None:
    shapes = expected_shapes(architecture, 1000)
    assert architecture_of(shapes, "f") == (architecture, 1000)


@pytest.mark.parametrize(
    ("architecture", "tensors", "count"),
    [(Architecture(), 267, 25_028_904), (RESNEXT101_32X8D, 522, 88_791_336), (RESNET50, 267, 25_557_032)],
)
def test_shapes_are_those_that_torchvision_publishes(architecture: Architecture, tensors: int, count: int) -> None:
    """The counts are torchvision's own, of parameters; BatchNorm's statistics come on top."""
    shapes = expected_shapes(architecture, 1000)
    assert len(shapes) == tensors
    assert sum(int(np.prod(shape)) for name, shape in shapes.items() if "running" not in name) == count
    if architecture == Architecture():
        assert shapes["conv1.weight"] == (64, 3, 7, 7)
        assert shapes["layer1.0.conv2.weight"] == (128, 4, 3, 3)
        assert shapes["layer2.0.downsample.0.weight"] == (512, 256, 1, 1)
        assert shapes["layer4.2.bn3.running_var"] == (2048,)


def test_every_tensor_that_is_missing_unknown_or_misshapen_is_named_in_one_error() -> None:
    shapes = {name: values.shape for name, values in parameters().items()}
    del shapes["bn1.running_mean"], shapes["layer2.1.conv3.weight"]
    shapes |= {"layer1.0.se.fc1.weight": (4, 4), "fc.weight": (3, 33), "bn1.bias": (5,)}
    with pytest.raises(LayoutError) as caught:
        architecture_of(shapes, "w.safetensors")
    assert str(caught.value) == (
        "w.safetensors should hold a ResNeXt of depths 1-2, cardinality 2, base width 2 and stem width 4; "
        "it lacks 'bn1.running_mean', 'layer2.1.conv3.weight'; it has besides 'layer1.0.se.fc1.weight'; "
        "shapes differ: 'bn1.bias [5] in place of [4]', 'fc.weight [3, 33] in place of [3, 32]'"
    )


def test_a_file_without_a_head_or_without_a_block_is_named_for_that() -> None:
    shapes = {name: values.shape for name, values in parameters().items()}
    body = {name: shape for name, shape in shapes.items() if not name.startswith("fc.")}
    with pytest.raises(LayoutError, match=r"; it lacks 'fc.weight', 'fc.bias'$"):
        architecture_of(body, "f")
    with pytest.raises(LayoutError, match="a head with at least one class"):
        architecture_of(expected_shapes(TINY, 0), "f")
    gap = {name: shape for name, shape in shapes.items() if not name.startswith("layer2.0.")}
    with pytest.raises(LayoutError, match=r"depths 1-1, .*lacks 'layer2.0.conv1.weight'.*besides 'layer2.1.conv1"):
        architecture_of(gap, "f")


@pytest.mark.parametrize(
    "change",
    [
        {"conv1.weight": None},
        {"conv1.weight": ()},
        {"conv1.weight": (0, 3, 7, 7)},
        {"layer1.0.conv2.weight": None},
        {"layer1.0.conv2.weight": (4,)},
        {"layer1.0.conv2.weight": (4, 0, 3, 3)},
        {"layer1.0.conv2.weight": (4, 3, 3, 3)},
        {"layer1.0.conv2.weight": (0, 2, 3, 3)},
        {f"layer{stage}.0.x": (1,) for stage in range(3, 9)},
    ],
)
def test_what_is_no_resnext_is_said_to_be_none(change: dict[str, tuple[int, ...] | None]) -> None:
    shapes = {name: values.shape for name, values in parameters().items()} | change
    with pytest.raises(LayoutError, match="f should hold a ResNeXt as torchvision and timm name it, with conv1"):
        architecture_of({name: shape for name, shape in shapes.items() if shape is not None}, "f")


def test_names_of_any_length_make_a_short_message() -> None:
    with pytest.raises(LayoutError) as caught:
        architecture_of({f"{i}{'x' * 100_000}\n": (1,) for i in range(1000)}, "f")
    assert len(str(caught.value)) < 1000
    assert "and 995 more" in str(caught.value)
