"""A manifest for versions whose files a test makes up."""

from datetime import UTC, datetime

from training.contract.manifest import MODEL_FILE, DatasetRecord, Manifest, Parity, Preprocessing, SplitMetrics, Variant


def manifest(**changes: object) -> Manifest:
    values: dict[str, object] = {
        "name": "flowers",
        "created": datetime.now(UTC),
        "labels": ["daisy", "tulip"],
        "preprocessing": Preprocessing(height=32, width=48),
        "variants": {"fp32": Variant(file=MODEL_FILE, accuracy=0.9, images_per_second=20)},
        "metrics": {"test": SplitMetrics(images=10, loss=0.1, accuracy=0.9, top5_accuracy=1)},
        "parity": Parity(images=10, top1_equal=10, max_abs_difference=1e-7),
        "config": {},
        "dataset": DatasetRecord(path="flowers", fingerprint="0", images={"train": 10}, seed=0),
        "parameters": {},
        "training_seconds": 1,
        "libraries": {},
    }
    return Manifest.model_validate(values | changes)
