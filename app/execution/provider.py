"""The execution providers of ONNX Runtime that the service knows, with what belongs to each."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from training.contract.manifest import Precision

Provider = Literal["cpu", "cuda", "tensorrt", "openvino"]


@dataclass(frozen=True)
class ProviderFacts:
    """The facts of a provider.

    `precisions` are those that `auto` considers, the lower first. `auto` times a run of `batch` images in each; without
    `timed` it takes the first that passes its checks.
    """

    name: str  # ONNX Runtime's
    precisions: tuple[Precision, ...]
    batch: int = 1
    timed: bool = True
    nvidia: bool = False
    fallbacks: tuple[Provider, ...] = ()  # for the nodes that it lacks
    options: Mapping[str, Any] = field(default_factory=dict)  # Any: ONNX Runtime takes strings, numbers, booleans


PROVIDERS: dict[Provider, ProviderFacts] = {
    # not fp16: it is float32 with more to do here
    "cpu": ProviderFacts("CPUExecutionProvider", ("int8", "fp32")),
    "cuda": ProviderFacts(
        "CUDAExecutionProvider",
        ("fp16", "fp32"),  # not int8: there is no INT8 convolution, so it is float32 with more to do
        batch=16,  # float16 pays in full batches, which are what counts on a GPU
        nvidia=True,
        fallbacks=("cpu",),
        options={
            "cudnn_conv_algo_search": "HEURISTIC",  # EXHAUSTIVE: seconds for each new shape; DEFAULT: 4 to 50 x slower
            "use_tf32": 0,  # 10-bit mantissas would fail the golden check
            "arena_extend_strategy": "kSameAsRequested",  # doubling could leave no room for the next version in a swap
        },
    ),
    "tensorrt": ProviderFacts(
        "TensorrtExecutionProvider",
        ("fp16", "fp32"),
        timed=False,  # compiling an engine takes minutes
        nvidia=True,
        fallbacks=("cuda", "cpu"),
    ),
    "openvino": ProviderFacts("OpenVINOExecutionProvider", ("int8", "fp32"), fallbacks=("cpu",)),
}

# of float16 on CUDA: without `use_tf32` its convolutions get no tensor cores either, and take 1.9 times as long on an
# H200; with channels first they take 1.5 times as long
HALF_OPTIONS = {"use_tf32": 1, "prefer_nhwc": 1}
