"""Keras to ONNX, and the proof that both are the same classifier."""

import json
from pathlib import Path

import numpy as np
import onnx

from training import resnext
from training.classifier import Classifier, Probabilities, Uint8Images, batches
from training.config import Architecture
from training.contract import INPUT_NAME, OUTPUT_NAME, Parity, Preprocessing
from training.errors import TrainingError
from training.runtime import keras, tf

OPSET = 18  # the newest that tf2onnx writes
TOLERANCE = 1e-4  # of a probability, Keras against ONNX Runtime
TIE = 1e-6  # two classes that Keras holds closer than this may change places


class ParityError(TrainingError):
    """Keras and ONNX Runtime disagree: nothing may be published."""


def inference_model(
    weights: Path, architecture: Architecture, preprocessing: Preprocessing, classes: int, *, merge_groups: bool | None
) -> keras.Model:
    """The trained network in float32, whatever precision it was trained in: image 0..255 -> probabilities."""
    keras.config.set_dtype_policy("float32")
    network = resnext.build(architecture, preprocessing, classes, merge_groups=merge_groups)
    network.load_weights(weights)
    return keras.Model(network.input, keras.ops.softmax(network.output), name=network.name)


def traced(model: keras.Model, preprocessing: Preprocessing) -> tf.types.experimental.PolymorphicFunction:
    """`model` as a TensorFlow function of uint8 [N, height, width, 3], with the contract's input and output names."""
    signature = tf.TensorSpec((None, preprocessing.height, preprocessing.width, 3), tf.uint8, name=INPUT_NAME)
    return tf.function(
        lambda image: {OUTPUT_NAME: model(tf.cast(image, tf.float32), training=False)}, input_signature=[signature]
    )


def to_onnx(
    function: tf.types.experimental.PolymorphicFunction, path: Path, labels: list[str], preprocessing: Preprocessing
) -> None:
    """Writes a `traced` model as ONNX: N dynamic, labels and preprocessing in the metadata.

    The model comes from `inference_model(..., merge_groups=False)`: one `Conv` a grouped convolution. Raises
    `onnx.checker.ValidationError` when the graph is not valid.
    """
    import tf2onnx  # here, since it imports TensorFlow, which has to find the environment that training.runtime sets

    graph, _ = tf2onnx.convert.from_function(function, function.input_signature, opset=OPSET)
    metadata = {"labels": json.dumps(labels, ensure_ascii=False), "preprocessing": preprocessing.model_dump_json()}
    onnx.helper.set_model_props(graph, metadata)
    onnx.checker.check_model(graph, full_check=True)
    onnx.save(graph, path)


def keras_classifier(function: tf.types.experimental.PolymorphicFunction) -> Classifier:
    """A `traced` model as a function of uint8 images."""

    def classify(images: Uint8Images) -> Probabilities:
        return np.concatenate([function(tf.constant(b))[OUTPUT_NAME].numpy() for b in batches(images)])

    return classify


def compare(reference: Probabilities, candidate: Probabilities) -> Parity:
    """Parity of two classifiers' answers to the same images.

    Raises ParityError when a probability differs by more than 1e-4, or an image's top class differs where Keras does
    not itself call it a tie.
    """
    difference = float(np.abs(reference - candidate).max())
    rows = np.arange(len(reference))
    lead = reference[rows, reference.argmax(1)] - reference[rows, candidate.argmax(1)]
    equal = int((lead <= TIE).sum())
    if difference > TOLERANCE or equal < len(reference):
        raise ParityError(
            f"ONNX Runtime should answer as Keras does on all {len(reference)} images (same top class, probabilities "
            f"within {TOLERANCE:g}); it names the same class on {equal}, and is off by up to {difference:.2g}"
        )
    return Parity(images=len(reference), top1_equal=equal, max_abs_difference=difference)
