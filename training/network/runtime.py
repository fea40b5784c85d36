"""TensorFlow as this project runs it: import `tf` and `keras` from here, so that the environment is set before."""

import contextlib
import os
import sys
from collections.abc import Iterator

from training.errors import TrainingError

__all__ = ["GPUS", "check_precision", "device_names", "keras", "precision_policy", "set_up", "tf"]

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # warnings and errors only
# By default TensorFlow uses oneDNN only on CPUs with AVX-512 VNNI and later. Its plain kernels have no gradient for
# grouped convolutions, and train merged ones at an eighth of oneDNN's speed.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
# tf2onnx copies the whole graph before each of its optimizers, to go on without one that fails: 8 GB for ResNeXt-50.
# An optimizer that fails should stop the export instead.
os.environ.setdefault("TF2ONNX_CATCH_ERRORS", "FALSE")


@contextlib.contextmanager
def _without_startup_lines() -> Iterator[None]:
    """Hides the lines that C++ code prints while it loads, before any log level applies. Exceptions still pass."""
    sys.stderr.flush()
    saved, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)


with _without_startup_lines():
    import keras
    import tensorflow as tf

    GPUS = tf.config.list_physical_devices("GPU")


class PrecisionError(TrainingError):
    """A precision in which this machine cannot train."""


def check_precision(precision: str) -> None:
    """Raises PrecisionError for float16 without a GPU: a CPU has no float16 gradients of grouped convolutions."""
    if precision == "mixed_float16" and not GPUS:
        raise PrecisionError(
            "precision mixed_float16 needs a GPU, and TensorFlow sees none here: a CPU trains in float32 or "
            "mixed_bfloat16; auto chooses"
        )


def set_up(precision: str, seed: int, deterministic: bool = False) -> tf.distribute.Strategy:
    """Prepares this process for one training: GPU memory growth, seeds, precision policy, one replica for each GPU.

    The arguments are fields of TrainConfig. Call it before the first model is built. Determinism stays on in this
    process. Raises PrecisionError.
    """
    check_precision(precision)
    if deterministic:
        tf.config.experimental.enable_op_determinism()
    for gpu in GPUS:
        tf.config.experimental.set_memory_growth(gpu, True)
    keras.utils.set_random_seed(seed)
    keras.config.set_dtype_policy(precision_policy(precision))
    return tf.distribute.MirroredStrategy() if len(GPUS) > 1 else tf.distribute.get_strategy()


def precision_policy(precision: str) -> str:
    """Returns the Keras dtype policy for a `precision` setting; `auto` is mixed where every GPU has units for it.

    `auto` on a CPU is float32: bfloat16 is faster on some CPUs only and costs accuracy, so it has to be asked for.
    """
    if precision != "auto":
        return precision
    capabilities = [tf.config.experimental.get_device_details(gpu).get("compute_capability", (0, 0)) for gpu in GPUS]
    if not capabilities or min(capabilities) < (7, 0):
        return "float32"
    return "mixed_bfloat16" if min(capabilities) >= (8, 0) else "mixed_float16"


def device_names() -> list[str]:
    """Returns names of the devices that the training runs on, for logs."""
    names = [tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name) for gpu in GPUS]
    return names or [f"CPU ({os.cpu_count()} cores)"]
