"""The exporting phase: converts the best epoch from Keras to ONNX."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx

from training.config import TrainConfig
from training.contract.manifest import INPUT_NAME, MODEL_FILE, OUTPUT_NAME, WEIGHTS_FILE, Preprocessing
from training.datasets.report import DatasetReport
from training.exported.classifier import Classifier, Probabilities, Uint8Images, batches
from training.network import resnext
from training.network.checkpoint import Checkpoint
from training.network.layers import has_grouped_kernels
from training.network.runtime import keras, tf
from training.phases.images import images_of
from training.runs.console import ProgressLog
from training.runs.records import ExportRecord
from training.runs.run import Run

OPSET = 18  # the newest opset that tf2onnx writes


def export(run: Run, log: ProgressLog) -> ExportRecord:
    """Writes the best epoch so far as `package/model.onnx`, its weights, and Keras' answers on the validation images.

    Raises CheckpointError before the first epoch's end, DatasetError.
    """
    config = run.config()
    log.announce("exporting", "Keras -> ONNX")
    labels, preprocessing = run.record("checking", DatasetReport).labels, config.preprocessing
    checkpoint = Checkpoint(run.checkpoints, [])
    checkpoint.load_state()
    shutil.rmtree(run.package, ignore_errors=True)
    run.report.mkdir(parents=True)
    (run.report / "history.json").write_text(json.dumps(checkpoint.history, indent=1))

    network = trained_network(checkpoint.best_weights, config, len(labels), exported=True)
    network.save_weights(run.package / WEIGHTS_FILE)
    function = traced(network, preprocessing)
    to_onnx(function, run.package / MODEL_FILE, labels, preprocessing)
    if not has_grouped_kernels():  # without them TensorFlow on this device cannot run the exported graph
        merged = trained_network(checkpoint.best_weights, config, len(labels), exported=False)
        function = traced(merged, preprocessing)
    val = images_of(run, "val")["val"]
    np.save(run.reference, keras_classifier(function)(val.images))
    return ExportRecord(parameters=resnext.parameters(network))


def trained_network(weights: Path, config: TrainConfig, classes: int, *, exported: bool) -> keras.Model:
    """Returns the trained network in float32, whatever precision it was trained in: image 0..255 -> logits."""
    keras.config.set_dtype_policy("float32")
    network = resnext.build(config.architecture, config.preprocessing, classes, exported=exported)
    network.load_weights(weights)
    return network


def traced(network: keras.Model, preprocessing: Preprocessing) -> tf.types.experimental.PolymorphicFunction:
    """Returns the network as a TensorFlow function with the contract's names.

    It maps uint8 [N, height, width, 3] to probabilities, float32 [N, classes].
    """
    signature = tf.TensorSpec((None, *preprocessing.shape), tf.uint8, name=INPUT_NAME)
    return tf.function(
        lambda image: {OUTPUT_NAME: tf.nn.softmax(network(tf.cast(image, tf.float32), training=False))},
        input_signature=[signature],
    )


def to_onnx(
    function: tf.types.experimental.PolymorphicFunction, path: Path, labels: list[str], preprocessing: Preprocessing
) -> None:
    """Writes a `traced` network as ONNX: N is dynamic, labels and preprocessing are in the metadata.

    The network has to be built with `exported=True`. Raises `onnx.checker.ValidationError` for an invalid graph.
    """
    import tf2onnx  # not at the top: it imports TensorFlow, which needs the environment that network.runtime sets

    graph, _ = tf2onnx.convert.from_function(function, function.input_signature, opset=OPSET)
    metadata = {"labels": json.dumps(labels, ensure_ascii=False), "preprocessing": preprocessing.model_dump_json()}
    onnx.helper.set_model_props(graph, metadata)
    onnx.checker.check_model(graph, full_check=True)
    onnx.save(graph, path)


def keras_classifier(function: tf.types.experimental.PolymorphicFunction) -> Classifier:
    """Returns a `traced` network as a function of uint8 images."""

    def classify(images: Uint8Images) -> Probabilities:
        return np.concatenate([function(tf.constant(b))[OUTPUT_NAME].numpy() for b in batches(images)])

    return classify
