"""Makes the models that are served: the real ResNeXt-50 at 224 x 224 and a tiny one, with random weights.

Speed does not depend on the weights, as long as activations keep a normal size. The service loads them from a
model repository like any other; the peers take `model.onnx` out of it. `make` runs this whenever the code that is used
here has changed: what is measured is what a training publishes today.
"""

import platform
import shutil
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.photos import small_photos
from benchmarks.servers import MODEL, MODELS
from training.contract.architecture import Architecture
from training.contract.manifest import (
    CPU_FILE,
    GOLDEN_FILE,
    MODEL_FILE,
    PRECISIONS,
    DatasetRecord,
    Manifest,
    Parity,
    Precision,
    Preprocessing,
    SplitMetrics,
    Variant,
)
from training.contract.repository import ModelRepository
from training.exported.classifier import Classifier, Uint8Images, onnx_classifier
from training.exported.int8 import Quantizer
from training.images.decode import decode
from training.network import resnext
from training.network.runtime import keras
from training.phases.export import keras_classifier, to_onnx, traced
from training.phases.quantize import write_fp16
from training.phases.verify import write_for_cpus

NETWORKS = {
    "real": (Architecture(), 224, 1000),
    "tiny": (Architecture(depths=(1,), cardinality=2, base_width=4, stem_width=8), 32, 10),
}
SHARPNESS = 6.0  # how far a photograph's own logit lies above the others
VERSIONS = 2  # of each network; only the seed differs: a swap goes from one to the other


def make(name: str, repository: ModelRepository) -> None:
    """Publishes two versions of a network to an empty repository, and makes the first live."""
    architecture, size, classes = NETWORKS[name]
    preprocessing = Preprocessing(height=size, width=size)
    images = np.stack([decode(photo, preprocessing) for photo in small_photos()])
    for seed in range(VERSIONS):
        keras.utils.set_random_seed(seed)
        network = resnext.build(architecture, preprocessing, classes, exported=True)
        tell_apart(network, images)
        labels = [f"class {i:04d}" for i in range(classes)]
        function = traced(network, preprocessing)
        with repository.staging() as staged, TemporaryDirectory() as scratch:
            to_onnx(function, staged / MODEL_FILE, labels, preprocessing)
            write_for_cpus(staged / MODEL_FILE, staged / CPU_FILE)
            files = {precision: facts.file for precision, facts in PRECISIONS.items()}
            Quantizer(staged / MODEL_FILE, images, Path(scratch)).quantize("minmax").replace(staged / files["int8"])
            half = write_fp16(staged / MODEL_FILE, Path(scratch) / files["fp16"])
            (Path(scratch) / files["fp16"]).replace(staged / files["fp16"])
            answers: dict[Precision, Classifier] = {
                "fp32": keras_classifier(function),
                "int8": onnx_classifier(staged / files["int8"]),
                "fp16": half,
            }
            # Any: savez has a flag of its own among its arguments
            golden: dict[str, Any] = {PRECISIONS[name].golden: f(images[:8]) for name, f in answers.items()}
            np.savez(staged / GOLDEN_FILE, images=images[:8], **golden)
            nothing = SplitMetrics(images=0, loss=0, accuracy=0, top5_accuracy=0)
            manifest = Manifest(
                name=repository.name,
                created=datetime.now(UTC),
                labels=labels,
                preprocessing=preprocessing,
                variants={
                    precision: Variant(
                        file=file,
                        cpu_file=CPU_FILE if precision == "fp32" else None,
                        accuracy=0,
                        images_per_second=None,
                    )
                    for precision, file in files.items()
                },
                metrics={"val": nothing, "test": nothing},
                parity=Parity(images=0, top1_equal=0, max_abs_difference=0),
                config={"seed": seed, "architecture": architecture.model_dump(mode="json")},
                dataset=DatasetRecord(path="none: random weights", fingerprint="", images={}, seed=seed),
                parameters=resnext.parameters(network),
                training_seconds=0,
                libraries={"python": platform.python_version()},
            )
            repository.publish(staged, manifest)
    repository.activate(1)


def tell_apart(network: keras.Model, images: Uint8Images) -> None:
    """Gives each photograph its own top class. With random weights all would have the same one, and a benchmark that
    checks answers could not see requests mixed up."""
    for layer in network.layers:
        if layer.name.endswith("_norm3"):
            layer.gamma.assign(np.full(layer.gamma.shape, 0.5))  # a block begins as its shortcut, the rest zeros
    logits = network.get_layer("logits")
    features = keras.Model(network.input, network.get_layer("pool").output)(images.astype(np.float32)).numpy()
    mean = features.mean(0)
    spread = (features - mean)[: logits.units]
    products = spread @ spread.T
    ridge = 0.01 * np.trace(products) / len(products) * np.eye(len(products))
    kernel = logits.kernel.numpy()
    kernel *= 1 / np.linalg.norm(spread, axis=1).mean()  # all logits within a few units of 0
    kernel[:, : len(spread)] += SHARPNESS * spread.T @ np.linalg.inv(products + ridge)
    logits.kernel.assign(kernel)
    logits.bias.assign(-mean @ kernel)


if __name__ == "__main__":
    if MODELS.exists():
        shutil.rmtree(MODELS)
    for network_name in NETWORKS:
        make(network_name, ModelRepository(MODELS / network_name, MODEL))
