"""config.pbtxt holds what Triton cannot find out by itself."""

from datetime import UTC, datetime

from training.contract.manifest import DatasetRecord, Manifest, Parity, Preprocessing
from training.contract.triton import triton_config


def test_config_names_inputs_outputs_and_the_version_to_serve() -> None:
    manifest = Manifest(
        name="花",
        version=7,
        created=datetime.now(UTC),
        labels=["daisy", "tulip", "rose"],
        preprocessing=Preprocessing(height=32, width=48),
        variants={},
        metrics={},
        parity=Parity(images=1, top1_equal=1, max_abs_difference=0),
        config={},
        dataset=DatasetRecord(path="flowers", fingerprint="0", images={}, seed=0),
        parameters={},
        training_seconds=1,
        libraries={},
    )
    assert triton_config(manifest).splitlines() == [
        'name: "花"',
        'backend: "onnxruntime"',
        "max_batch_size: 64",
        'input [{ name: "image" data_type: TYPE_UINT8 dims: [32, 48, 3] }]',
        'output [{ name: "probabilities" data_type: TYPE_FP32 dims: [3] label_filename: "labels.txt" }]',
        "version_policy: { specific: { versions: [7] } }",
        "dynamic_batching {}",
    ]
