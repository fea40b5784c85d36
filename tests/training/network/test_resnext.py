"""The network: the paper's numbers, the grouped convolution, and padding as published weights expect it."""

from pathlib import Path

import numpy as np
import pytest

from tests.training.network.small import SIZE_32, SMALL
from training.contract.architecture import Architecture, parameters
from training.contract.manifest import Preprocessing
from training.network import resnext
from training.network.runtime import keras, tf


@pytest.fixture(scope="module")
def resnext50() -> keras.Model:
    return resnext.build(Architecture(), Preprocessing(height=224, width=224), classes=1000)


def test_resnext50_has_the_papers_parameters(resnext50: keras.Model) -> None:
    assert resnext.parameters(resnext50) == {"total": 25_097_128, "trainable": 25_028_904, "non_trainable": 68_224}
    assert resnext50.name == "resnext50_32x4d"


def test_the_parameters_are_known_before_the_network_is_built(resnext50: keras.Model) -> None:
    classifier = resnext50.get_layer("logits").count_params()
    assert parameters(Architecture()) == resnext.parameters(resnext50)["total"] - classifier
    small = resnext.build(SMALL, SIZE_32, classes=2)
    assert parameters(SMALL) == resnext.parameters(small)["total"] - small.get_layer("logits").count_params()
    largest = Architecture(depths=(3, 4, 23, 3), cardinality=32, base_width=48)  # that was published: 829 million
    assert 0.82e9 < parameters(largest) < 0.83e9


def test_summary_gives_the_papers_shapes_and_multiply_adds(resnext50: keras.Model) -> None:
    summary = resnext.summary(resnext50)
    assert summary["output_shapes"] == {
        "image": [224, 224, 3],
        "stem_conv": [112, 112, 64],
        "stem_pool": [56, 56, 64],
        "stage1": [56, 56, 256],
        "stage2": [28, 28, 512],
        "stage3": [14, 14, 1024],
        "stage4": [7, 7, 2048],
        "pool": [2048],
        "logits": [1000],
    }
    assert summary["multiply_adds"] == 4_230_479_872


def test_a_layers_name_is_its_address(resnext50: keras.Model) -> None:
    assert resnext50.get_layer("stage2_block1_conv2").groups == 32
    projections = [layer.name for layer in resnext50.layers if layer.name.endswith("shortcut_conv")]
    assert projections == [f"stage{i}_block1_shortcut_conv" for i in (1, 2, 3, 4)]


def test_strided_convolutions_pad_symmetrically() -> None:
    """The first output sees the first pixel through the kernel's center, as torchvision's and timm's weights expect."""
    model = resnext.build(SMALL, SIZE_32, classes=2)
    block = model.get_layer("stage2_block1_conv2")
    for name, pad, layer in (("stem", "stem_pad", "stem_conv"), ("block", "stage2_block1_pad", block.name)):
        convolution, padding = model.get_layer(layer), model.get_layer(pad)
        impulse = np.zeros((1, *padding.input.shape[1:]), np.float32)
        impulse[0, 0, 0, 0] = 1
        center = convolution.kernel_size[0] // 2
        np.testing.assert_allclose(
            convolution(padding(impulse))[0, 0, 0, 0], convolution.kernel[center, center, 0, 0], err_msg=name
        )


def test_normalization_is_the_first_layer() -> None:
    model = resnext.build(SMALL, SIZE_32, classes=2)
    first = keras.Model(model.input, model.get_layer("normalize").output)
    white = first(np.full((1, 32, 32, 3), 255, np.float32))
    np.testing.assert_allclose(white[0, 0, 0], [(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225], 1e-5)


def test_a_block_begins_as_its_shortcut() -> None:
    model = resnext.build(SMALL, SIZE_32, classes=2)
    assert not np.any(model.get_layer("stage1_block1_norm3").gamma)


def test_a_seed_decides_the_initial_weights_and_layers_differ() -> None:
    def kernels(seed: int) -> list[np.ndarray]:
        keras.utils.set_random_seed(seed)
        model = resnext.build(Architecture(depths=(2,), cardinality=4, stem_width=16), SIZE_32, classes=2)
        return [model.get_layer(f"stage1_block{block}_conv2").kernel.numpy() for block in (1, 2)]

    first, again, other = kernels(1), kernels(1), kernels(2)
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)
    assert not np.allclose(first[0], first[1])


def test_the_exported_network_is_the_trained_one() -> None:
    """The same weights give the same logits, and the same statistics after a step of training."""
    images = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3)).astype(np.float32)
    trained, exported = (resnext.build(SMALL, SIZE_32, classes=3, exported=exported) for exported in (False, True))
    exported.set_weights([value + 0.1 * abs(np.sin(i)) for i, value in enumerate(exported.get_weights())])
    trained.set_weights(exported.get_weights())
    for training in (False, True):
        np.testing.assert_allclose(trained(images, training=training), exported(images, training=training), 1e-4, 1e-4)
    for one, other in zip(trained.get_weights(), exported.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_either_form_reads_the_others_weight_file(tmp_path: Path) -> None:
    models = [resnext.build(SMALL, SIZE_32, classes=3, exported=exported) for exported in (False, True)]
    for one, other in (models, models[::-1]):
        one.save_weights(tmp_path / "model.weights.h5", overwrite=True)
        other.load_weights(tmp_path / "model.weights.h5")
        for mine, theirs in zip(one.get_weights(), other.get_weights(), strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_any_size_class_count_and_cardinality() -> None:
    architecture = Architecture(depths=(1, 2, 1), cardinality=2, base_width=8, stem_width=8)
    model = resnext.build(architecture, Preprocessing(height=48, width=64), classes=7)
    assert model(tf.zeros((2, 48, 64, 3))).shape == (2, 7)
    assert model.name == "resnext14_2x8d"
