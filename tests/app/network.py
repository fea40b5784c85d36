"""A real small network and a real repository to serve it from."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from PIL import Image

from tests.training.images import pictures
from training.contract.manifest import (
    CPU_FILE,
    FP16_FILE,
    GOLDEN_FILE,
    INPUT_NAME,
    INT8_FILE,
    MODEL_FILE,
    OUTPUT_NAME,
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

SIZE = 16
LABELS = ["apple", "birch", "cedar", "daisy", "elder", "fern", "grape"]
PREPROCESSING = Preprocessing(height=SIZE, width=SIZE)


def network(
    seed: int = 0,
    element: int = TensorProto.UINT8,
    input_name: str = INPUT_NAME,
    batch: int | str = "N",
    classes: int = len(LABELS),
    fragile: bool = False,
    blind: bool = False,
    slow: bool = False,
    endless: bool = False,
) -> onnx.ModelProto:
    """Makes a network: uint8 [N, 16, 16, 3] -> Conv, Relu, mean, MatMul, Softmax -> float32 [N, classes].

    The weights come from the seed.

    A `fragile` one fails to run on an image with a 255 in it: that looks up row 255 of a table of 255. A `blind` one
    gives NaN for such an image: 0 / 0. A `slow` one takes the sines of sines of 100,000 numbers on its way.
    An `endless` one loops for ever on a batch with a 255 in it.
    """
    random = np.random.default_rng(seed)
    weights = {
        "scale": np.float32(1 / 255).reshape(1),
        "kernel": random.normal(0, 1, (8, 3, 3, 3)).astype(np.float32),
        "dense": random.normal(0, 4, (8, classes)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Cast", [input_name], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["float", "scale"], ["scaled"]),
        helper.make_node("Transpose", ["scaled"], ["channels_first"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["channels_first", "kernel"], ["features"], kernel_shape=[3, 3], strides=[2, 2]),
        helper.make_node("Relu", ["features"], ["active"]),
        helper.make_node("ReduceMean", ["active"], ["pooled"], axes=[2, 3], keepdims=0),
        helper.make_node("MatMul", ["pooled", "dense"], ["logits"]),
        helper.make_node("Softmax", ["logits"], [OUTPUT_NAME], axis=1),
    ]
    if fragile:
        weights["table"] = np.zeros((255, classes), np.float32)
        nodes[-1:] = [
            helper.make_node("ReduceMax", ["float"], ["brightest"], axes=[1, 2, 3], keepdims=0),
            helper.make_node("Cast", ["brightest"], ["row"], to=TensorProto.INT64),
            helper.make_node("Gather", ["table", "row"], ["zeros"]),
            helper.make_node("Add", ["logits", "zeros"], ["checked"]),
            helper.make_node("Softmax", ["checked"], [OUTPUT_NAME], axis=1),
        ]
    if blind:
        weights["white"] = np.array(255, np.float32)
        nodes[-1:] = [
            helper.make_node("ReduceMax", ["float"], ["brightest"], axes=[1, 2, 3], keepdims=0),
            helper.make_node("Sub", ["white", "brightest"], ["darkness"]),
            helper.make_node("Div", ["darkness", "darkness"], ["one"]),
            helper.make_node("Unsqueeze", ["one", "last"], ["ones"]),
            helper.make_node("Mul", ["logits", "ones"], ["checked"]),
            helper.make_node("Softmax", ["checked"], [OUTPUT_NAME], axis=1),
        ]
        weights["last"] = np.array([1], np.int64)
    if slow:
        weights |= {"repeats": np.array([1, 100_000 // classes], np.int64), "zero": np.zeros(1, np.float32)}
        nodes[-1:] = [
            helper.make_node("Tile", ["logits", "repeats"], ["sine0"]),
            *(helper.make_node("Sin", [f"sine{i}"], [f"sine{i + 1}"]) for i in range(20)),
            helper.make_node("ReduceMax", ["sine20"], ["sine"], axes=[1], keepdims=1),
            helper.make_node("Mul", ["sine", "zero"], ["nothing"]),
            helper.make_node("Add", ["logits", "nothing"], ["late"]),
            helper.make_node("Softmax", ["late"], [OUTPUT_NAME], axis=1),
        ]
    if endless:
        weights["bright"] = np.array(254, np.float32)
        nodes[-1:] = [
            helper.make_node("ReduceMax", ["float"], ["brightest"], keepdims=0),
            helper.make_node("Greater", ["brightest", "bright"], ["begins"]),
            helper.make_node("Loop", ["", "begins", "logits"], ["looped"], body=_again()),
            helper.make_node("Softmax", ["looped"], [OUTPUT_NAME], axis=1),
        ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info(input_name, element, [batch, SIZE, SIZE, 3])],
        [helper.make_tensor_value_info(OUTPUT_NAME, TensorProto.FLOAT, [batch, classes])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def _again() -> onnx.GraphProto:
    """Makes the body of a loop that changes nothing and goes on."""
    iteration = helper.make_tensor_value_info("iteration", TensorProto.INT64, [])
    goes, goes_on = (helper.make_tensor_value_info(name, TensorProto.BOOL, []) for name in ("goes", "goes_on"))
    value, same = (helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("value", "same"))
    nodes = [helper.make_node("Identity", ["goes"], ["goes_on"]), helper.make_node("Identity", ["value"], ["same"])]
    return helper.make_graph(nodes, "again", [iteration, goes, value], [goes_on, same])


def random_images(n: int, seed: int = 0) -> NDArray[np.uint8]:
    """Makes images, uint8 [n, 16, 16, 3]: each a color with noise, so that their classes differ."""
    random = np.random.default_rng(seed)
    colours = random.integers(0, 256, (n, 1, 1, 3))
    noisy = colours + random.integers(-40, 40, (n, SIZE, SIZE, 3))
    images: NDArray[np.uint8] = np.clip(noisy, 0, 254).astype(np.uint8)
    return images


def reference(model: onnx.ModelProto, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Returns the answers of onnx's own reference implementation, which stands in for Keras."""
    output: NDArray[np.float32] = ReferenceEvaluator(model).run(None, {model.graph.input[0].name: images})[0]
    return output


def publish(
    repository: ModelRepository,
    seed: int = 0,
    *,
    activate: bool = True,
    model: onnx.ModelProto | None = None,
    cpu: onnx.ModelProto | None = None,
    int8: onnx.ModelProto | None = None,
    fp16: onnx.ModelProto | None = None,
    golden: dict[str, Any] | None = None,  # Any: arrays of any kind, also bad ones
    variants: dict[str, Variant] | None = None,
    preprocessing: Preprocessing = PREPROCESSING,
    labels: list[str] = LABELS,
    config: dict[str, Any] | None = None,  # Any: JSON
) -> int:
    """Publishes the network of a seed as the next version; returns its number.

    `cpu` is what is written as its copy for CPUs; `int8`, `fp16` are its variants.
    """
    model = model or network(seed)
    images = random_images(4, seed)
    golden = golden if golden is not None else {"images": images, "probabilities": reference(model, images)}
    variants = variants or {"fp32": Variant(file=MODEL_FILE, accuracy=0.9, images_per_second=100)}
    models = dict.fromkeys(variants, model)
    lower: list[tuple[Precision, str, onnx.ModelProto | None]] = [("int8", INT8_FILE, int8), ("fp16", FP16_FILE, fp16)]
    for name, file, variant in lower:
        if variant:
            variants[name] = Variant(file=file, accuracy=0.89, images_per_second=300 if name == "int8" else None)
            models[name] = variant
            golden.setdefault(PRECISIONS[name].golden, reference(variant, images))
    if cpu:
        variants["fp32"].cpu_file = CPU_FILE
    metrics = SplitMetrics(images=100, loss=0.3, accuracy=0.9, top5_accuracy=1)
    manifest = Manifest(
        name=repository.name,
        created=datetime.now(UTC),
        labels=labels,
        preprocessing=preprocessing,
        variants=variants,
        metrics={"val": metrics, "test": metrics},
        parity=Parity(images=4, top1_equal=4, max_abs_difference=1e-7),
        config=config or {"data": "somewhere"},
        dataset=DatasetRecord(path="somewhere", fingerprint="0" * 64, images={"train": 100}, seed=0),
        parameters={"trainable": 272},
        training_seconds=1.0,
        libraries={"onnx": onnx.__version__},
    )
    with repository.staging() as folder:
        for precision, variant in variants.items():
            (folder / variant.file).write_bytes(models[precision].SerializeToString())
        if cpu:
            (folder / CPU_FILE).write_bytes(cpu.SerializeToString())
        np.savez(folder / GOLDEN_FILE, **golden)
        version = repository.publish(folder, manifest).version
    if activate:
        repository.activate(version)
    return version


def repository_at(root: Path) -> ModelRepository:
    """Makes a model repository with the name that the service looks for."""
    return ModelRepository(root, "resnext50")


def encoded(image: NDArray[np.uint8], format: str = "PNG") -> bytes:
    """Returns the bytes of an image file."""
    return pictures.encoded(Image.fromarray(image), format)
