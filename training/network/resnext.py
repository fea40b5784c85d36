"""ResNeXt: Xie et al., "Aggregated Residual Transformations for Deep Neural Networks" (2017), table 1.

Strided convolutions and the max-pool pad symmetrically, the stride sits on the 3x3 convolution and BatchNorm has
epsilon 1e-5, so weights published for this network by torchvision and timm fit as they are.
A layer's name is its address: `stage2_block1_conv2`.
"""

import functools
from collections.abc import Callable
from typing import Any  # tensors and layers: Keras ships no types

from training.contract.architecture import Architecture, Stage, name_of, stages
from training.contract.manifest import Preprocessing
from training.network.layers import BatchNormalization, Conv2D, GroupedConv2D
from training.network.runtime import keras

layers = keras.layers

BATCH_NORM = {
    "epsilon": 1e-5,
    # Keras' 0.99 leaves the moving statistics far behind in a short run: 78 % training, 11 % validation accuracy
    "momentum": 0.9,
}


def build(
    architecture: Architecture,
    preprocessing: Preprocessing,
    classes: int,
    *,
    synchronized: bool = False,
    exported: bool = False,
) -> keras.Model:
    """Builds the network: `image` [N, height, width, 3] RGB in 0..255, any dtype -> `logits` float32 [N, classes].

    Its first layer normalizes. `synchronized` shares BatchNorm statistics between replicas. `exported` uses plain
    layers only, as ONNX needs them, even where this device is slow at them; otherwise each layer takes the form that
    trains fastest here. Raises ValueError where groups do not divide channels.
    """
    normalization = layers.BatchNormalization if exported else BatchNormalization
    norm = functools.partial(normalization, synchronized=synchronized, **BATCH_NORM)
    dense = functools.partial(convolution, layers.Conv2D if exported else Conv2D)
    grouped = functools.partial(
        GroupedConv2D, groups=architecture.cardinality, merge_groups=False if exported else None
    )
    image = keras.Input(preprocessing.shape, name="image")
    x = layers.Rescaling(
        scale=[1 / (255 * s) for s in preprocessing.std],
        offset=[-m / s for m, s in zip(preprocessing.mean, preprocessing.std, strict=True)],
        dtype="float32",
        name="normalize",
    )(image)
    x = layers.ZeroPadding2D(3, name="stem_pad")(x)
    x = dense(architecture.stem_width, 7, stride=2, padding="valid", name="stem_conv")(x)
    x = norm(name="stem_norm")(x)
    x = layers.ReLU(name="stem_relu")(x)
    x = layers.ZeroPadding2D(1, name="stem_pool_pad")(x)  # after a ReLU no value is below zero
    x = layers.MaxPooling2D(3, strides=2, name="stem_pool")(x)
    for i, stage in enumerate(stages(architecture), start=1):
        for j in range(1, stage.blocks + 1):
            stride = stage.stride if j == 1 else 1
            x = residual_block(x, stage, stride, dense, grouped, norm, f"stage{i}_block{j}")
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    logits = layers.Dense(classes, dtype="float32", name="logits")(x)
    return keras.Model(image, logits, name=name_of(architecture))


def residual_block(
    x: Any,  # keras tensor; Keras ships no types
    stage: Stage,
    stride: int,
    dense: Callable[..., Any],
    grouped: Callable[..., Any],
    norm: Callable[..., Any],
    name: str,
) -> Any:
    """Adds a block: 1x1 reduce, 3x3 grouped, 1x1 expand, plus the shortcut, which projects where the shape changes."""
    shortcut = x
    if stride != 1 or x.shape[-1] != stage.filters:
        shortcut = dense(stage.filters, 1, stride=stride, name=f"{name}_shortcut_conv")(x)
        shortcut = norm(name=f"{name}_shortcut_norm")(shortcut)
    x = dense(stage.width, 1, name=f"{name}_conv1")(x)
    x = layers.ReLU(name=f"{name}_relu1")(norm(name=f"{name}_norm1")(x))
    if stride != 1:
        x = layers.ZeroPadding2D(1, name=f"{name}_pad")(x)  # Keras' "same" pads a strided convolution on one side only
    x = grouped(
        stage.width,
        3,
        strides=stride,
        padding="same" if stride == 1 else "valid",
        use_bias=False,
        kernel_initializer=initializer(),
        name=f"{name}_conv2",
    )(x)
    x = layers.ReLU(name=f"{name}_relu2")(norm(name=f"{name}_norm2")(x))
    x = dense(stage.filters, 1, name=f"{name}_conv3")(x)
    # A block begins as the identity (He et al., "Bag of Tricks for Image Classification", section 3.1): digits reach
    # 0.96 in eight epochs, without it 0.79
    x = norm(gamma_initializer="zeros", name=f"{name}_norm3")(x)
    return layers.ReLU(name=f"{name}_relu3")(layers.Add(name=f"{name}_add")([x, shortcut]))


def initializer() -> keras.initializers.Initializer:
    """Returns a new initializer, He et al. (2015) by fan-in: one instance would draw the same numbers for each layer.

    The paper's code uses fan-out, which makes the weights of a grouped kernel too small by sqrt(groups).
    """
    return keras.initializers.HeNormal()


def convolution(
    kind: type[keras.layers.Layer], filters: int, size: int, *, stride: int = 1, padding: str = "same", name: str
) -> keras.layers.Layer:
    """Returns a dense convolution without bias, since BatchNorm follows it."""
    return kind(
        filters, size, strides=stride, padding=padding, use_bias=False, kernel_initializer=initializer(), name=name
    )


def layer_rows(model: keras.Model) -> list[tuple[str, str, str, str]]:
    """Returns name, kind, output shape and number of parameters of every layer."""
    return [
        (
            layer.name,
            type(layer).__name__,
            " x ".join(map(str, layer.output.shape[1:])),
            f"{layer.count_params():,}",
        )
        for layer in model.layers
    ]


def multiply_adds(model: keras.Model) -> int:
    """Returns the multiply-adds of all convolutions and the classifier for one image."""
    total = 0
    for layer in model.layers:
        if isinstance(layer, layers.Conv2D):
            _, height, width, _ = layer.output.shape
            total += height * width * layer.kernel.shape.num_elements()
        elif isinstance(layer, layers.Dense):
            total += layer.kernel.shape.num_elements()
    return total


def parameters(model: keras.Model) -> dict[str, int]:
    """Counts `total`, `trainable` and `non_trainable` parameters; the last are BatchNorm's moving statistics."""
    trainable = sum(w.shape.num_elements() for w in model.trainable_weights)
    fixed = sum(w.shape.num_elements() for w in model.non_trainable_weights)
    return {"total": trainable + fixed, "trainable": trainable, "non_trainable": fixed}


def summary(model: keras.Model) -> dict[str, Any]:
    """Returns the network in figures: name, output shapes of key layers, parameter counts, multiply-adds."""
    ends = [layer for layer in model.layers if layer.name.endswith("_relu3")]
    key = {layer.name.removesuffix("_relu3"): layer for layer in ends}
    stages_last = {name.split("_")[0]: name for name in key}
    shapes = {
        "image": model.input.shape,
        **{name: model.get_layer(name).output.shape for name in ("stem_conv", "stem_pool")},
        **{stage: key[name].output.shape for stage, name in stages_last.items()},
        **{name: model.get_layer(name).output.shape for name in ("pool", "logits")},
    }
    return {
        "name": model.name,
        "output_shapes": {name: list(shape[1:]) for name, shape in shapes.items()},
        "parameters": parameters(model),
        "multiply_adds": multiply_adds(model),
    }
