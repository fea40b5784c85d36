"""Names and shapes of the parameters in torchvision's and timm's files, for bottleneck ResNets and ResNeXts.

The two are the same for these networks. A file holds nothing else: a parameter that is missing, unknown or has another
shape means that it is another network, and each is named.
"""

import re
from collections.abc import Mapping

from training.contract.architecture import Architecture, stages
from training.weights.tensors import TensorsError, few_names

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]

STEM = "conv1.weight"
GROUPED = "layer1.0.conv2.weight"
HEAD = "fc"
NORM_PARTS = ("weight", "bias", "running_mean", "running_var")
_BLOCK = re.compile(r"layer([1-9])\.(\d{1,4})\.")


class LayoutError(TensorsError):
    """A file whose tensors are not those of a bottleneck ResNet or ResNeXt."""


def architecture_of(shapes: Shapes, called: str) -> tuple[Architecture, int]:
    """Returns the network that tensors of these shapes make, and its number of classes.

    Depths come from the names, the widths from the shapes of the stem and of the first grouped convolution. Raises
    LayoutError, in which `called` names the file.
    """
    try:
        architecture = _inferred(shapes)
    except (KeyError, ValueError, ZeroDivisionError):
        raise LayoutError(
            f"{called} should hold a ResNeXt as torchvision and timm name it, with {STEM} [width, 3, 7, 7] and "
            f"{GROUPED} [width, width / groups, 3, 3]; it has {few_names(list(shapes))}"
        ) from None
    classes = next((shapes[name][0] for name in (f"{HEAD}.bias", f"{HEAD}.weight") if shapes.get(name)), 0)
    if faults := _faults(shapes, expected_shapes(architecture, classes)):
        raise LayoutError(f"{called} should hold {describe(architecture)}; {'; '.join(faults)}")
    if not classes:
        raise LayoutError(f"{called} should have a head with at least one class")
    return architecture, classes


def expected_shapes(architecture: Architecture, classes: int) -> dict[str, Shape]:
    """Returns the shapes of all parameters in PyTorch's order of dimensions: [out, in / groups, height, width]."""
    shapes = _convolution("conv1", "bn1", (architecture.stem_width, 3, 7, 7))
    channels = architecture.stem_width
    for i, stage in enumerate(stages(architecture), start=1):
        for j in range(stage.blocks):
            block = f"layer{i}.{j}."
            kernels = {
                "1": (stage.width, channels, 1, 1),
                "2": (stage.width, stage.width // architecture.cardinality, 3, 3),
                "3": (stage.filters, stage.width, 1, 1),
            }
            for number, kernel in kernels.items():
                shapes |= _convolution(f"{block}conv{number}", f"{block}bn{number}", kernel)
            if j == 0:
                projection = (stage.filters, channels, 1, 1)
                shapes |= _convolution(f"{block}downsample.0", f"{block}downsample.1", projection)
            channels = stage.filters
    return {**shapes, f"{HEAD}.weight": (classes, channels), f"{HEAD}.bias": (classes,)}


def describe(architecture: Architecture) -> str:
    """Returns the network in words, for messages."""
    return (
        f"a ResNeXt of depths {'-'.join(map(str, architecture.depths))}, cardinality {architecture.cardinality}, base "
        f"width {architecture.base_width} and stem width {architecture.stem_width}"
    )


def _inferred(shapes: Shapes) -> Architecture:
    """Raises KeyError, ValueError or ZeroDivisionError where names and shapes tell no architecture."""
    stem_width, *_ = shapes[STEM]
    width, group, *_ = shapes[GROUPED]
    if width % group:
        raise ValueError
    blocks = {match.groups() for name in shapes if (match := _BLOCK.match(name))}
    counts = {stage: sum(other == stage for other, _ in blocks) for stage, _ in blocks}
    return Architecture(
        depths=tuple(counts[stage] for stage in sorted(counts)),
        cardinality=width // group,
        base_width=group,
        stem_width=stem_width,
    )


def _faults(shapes: Shapes, expected: Shapes) -> list[str]:
    missing = [name for name in expected if name not in shapes]
    unknown = [name for name in shapes if name not in expected]
    misshapen = [
        f"{name} {list(shapes[name])} in place of {list(shape)}"
        for name, shape in expected.items()
        if name in shapes and shapes[name] != shape
    ]
    found = {"it lacks": missing, "it has besides": unknown, "shapes differ:": misshapen}
    return [f"{words} {few_names(names)}" for words, names in found.items() if names]


def _convolution(conv: str, norm: str, kernel: Shape) -> dict[str, Shape]:
    """Returns the shapes of a convolution without bias and of the BatchNorm behind it."""
    return {f"{conv}.weight": kernel, **{f"{norm}.{part}": kernel[:1] for part in NORM_PARTS}}
