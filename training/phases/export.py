"""The exporting phase: converts the best epoch from Keras to ONNX."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx

from training.config import Recipe
from training.contract.manifest import INPUT_NAME, MODEL_FILE, OUTPUT_NAME, WEIGHTS_FILE, Preprocessing
from training.contract.repository import ModelRepository
from training.datasets.report import DatasetReport
from training.environment import Places
from training.exported.classifier import Classifier, Probabilities, Uint8Images, batches
from training.heads.backbone import backbone_of
from training.heads.folding import put_head, read_head
from training.network import resnext
from training.network.checkpoint import Checkpoint
from training.network.initial_weights import load_source
from training.network.layers import has_grouped_kernels
from training.network.published_weights import OUR_HEAD
from training.network.runtime import keras, tf
from training.phases.images import images_of
from training.runs.console import ProgressLog
from training.runs.records import ExportRecord
from training.runs.run import Run
from training.runs.source import Source, read_source
from training.weights.store import WeightsStore

OPSET = 18  # the newest opset that tf2onnx writes

Fill = Callable[[keras.Model], object]


def export(run: Run, repository: ModelRepository, log: ProgressLog) -> ExportRecord:
    """Writes the trained network as `package/model.onnx`, its weights, and Keras' answers on the validation images.

    It is the best epoch so far, or the head on its backbone. Raises CheckpointError before the first epoch's end,
    DatasetError, WeightsError, ContractError, GraphError.
    """
    config = run.config()
    log.announce("exporting", "Keras -> ONNX")
    labels, preprocessing = run.record("checking", DatasetReport).labels, config.preprocessing
    shutil.rmtree(run.package, ignore_errors=True)
    run.report.mkdir(parents=True)
    fill = _filled_by_head(run, repository, labels) if run.head.exists() else _filled_by_checkpoint(run)

    network = filled_network(fill, config, len(labels), exported=True)
    network.save_weights(run.package / WEIGHTS_FILE)
    function = traced(network, preprocessing)
    if not (run.head.exists() and _backbone_with_head(run, labels)):
        to_onnx(function, run.package / MODEL_FILE, labels, preprocessing)
    if not has_grouped_kernels():  # without them TensorFlow on this device cannot run the exported graph
        function = traced(filled_network(fill, config, len(labels), exported=False), preprocessing)
    val = images_of(run, "val")["val"]
    np.save(run.reference, keras_classifier(function)(val.images))
    return ExportRecord(parameters=resnext.parameters(network))


def export_backbone(
    config: Recipe, source: Source, repository: ModelRepository, weights: WeightsStore, target: Path
) -> None:
    """Writes the graph of a backbone, with a head that a user replaces. Raises WeightsError, ContractError."""
    labels = ["a", "b"]

    def fill(network: keras.Model) -> None:
        load_source(network, source, labels, repository, weights)
        kernel, bias = network.get_layer(OUR_HEAD).get_weights()
        network.get_layer(OUR_HEAD).set_weights([kernel, bias + 1])  # tf2onnx leaves out an Add of zeros

    network = filled_network(fill, config, len(labels), exported=True)
    to_onnx(traced(network, config.preprocessing), target, labels, config.preprocessing)


def _filled_by_checkpoint(run: Run) -> Fill:
    checkpoint = Checkpoint(run.checkpoints, [])
    checkpoint.load_state()
    (run.report / "history.json").write_text(json.dumps(checkpoint.history, indent=1))
    weights = checkpoint.best_weights
    return lambda network: network.load_weights(weights)


def _filled_by_head(run: Run, repository: ModelRepository, labels: list[str]) -> Fill:
    source, head = read_source(run), read_head(run.head)
    assert source
    (run.report / "history.json").write_text("[]")

    def fill(network: keras.Model) -> None:
        load_source(network, source, labels, repository, WeightsStore(Places().weights))
        network.get_layer(OUR_HEAD).set_weights([head.kernel, head.bias])

    return fill


def _backbone_with_head(run: Run, labels: list[str]) -> bool:
    """Writes the kept graph of the backbone with the run's head. Returns False where no graph is kept any more."""
    source = read_source(run)
    assert source
    target = run.package / MODEL_FILE
    if not backbone_of(run.config(), source).take(MODEL_FILE, target):
        return False
    put_head(target, read_head(run.head), labels)
    return True


def filled_network(fill: Fill, config: Recipe, classes: int, *, exported: bool) -> keras.Model:
    """Returns the network with the weights that `fill` gives it, in float32: image 0..255 -> logits."""
    keras.config.set_dtype_policy("float32")
    network = resnext.build(config.architecture, config.preprocessing, classes, exported=exported)
    fill(network)
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
