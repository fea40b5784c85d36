"""`config.pbtxt`, which describes a version to Triton."""

import json

from training.contract.manifest import INPUT_NAME, OUTPUT_NAME, Manifest


def triton_config(manifest: Manifest) -> str:
    """Returns the text of `config.pbtxt`: names, types, shapes, and the manifest's version to serve."""
    size = manifest.preprocessing
    return (
        f"name: {json.dumps(manifest.name, ensure_ascii=False)}\n"
        'backend: "onnxruntime"\n'
        "max_batch_size: 64\n"
        f'input [{{ name: "{INPUT_NAME}" data_type: TYPE_UINT8 dims: [{size.height}, {size.width}, 3] }}]\n'
        f'output [{{ name: "{OUTPUT_NAME}" data_type: TYPE_FP32 dims: [{len(manifest.labels)}]'
        ' label_filename: "labels.txt" }]\n'
        f"version_policy: {{ specific: {{ versions: [{manifest.version}] }} }}\n"
        "dynamic_batching {}\n"
    )
