"""The extras: packages that some commands need and serving does not."""

import importlib.util
from typing import Literal

from training.errors import TrainingError

Extra = Literal["train", "hub"]

# the name of the package that has each module
PACKAGES = {
    "keras": "tensorflow",
    "matplotlib": "matplotlib",
    "mplfonts": "mplfonts",
    "onnx": "onnx",
    "safetensors": "safetensors",
    "scipy": "scipy",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "tensorboard": "tensorboard",
    "tensorflow": "tensorflow",
    "tf2onnx": "tf2onnx",
}
EXTRAS: dict[Extra, dict[str, str]] = {
    "train": PACKAGES,
    "hub": {"httpx2": "httpx2", "huggingface_hub": "huggingface_hub"},
}


class ExtraMissing(TrainingError):
    """A command that needs a package which is not installed."""


def require_extra(command: str, extra: Extra = "train") -> None:
    """Raises ExtraMissing unless all of the extra is installed."""
    packages = EXTRAS[extra]
    if missing := sorted({packages[module] for module in packages if importlib.util.find_spec(module) is None}):
        raise missing_extra(command, ", ".join(missing), extra)


def missing_extra(command: str, packages: str, extra: Extra = "train") -> ExtraMissing:
    """Returns the error of a command that lacks these packages."""
    return ExtraMissing(
        f"resnext {command} needs {packages}, which the extra `{extra}` brings: pip install 'resnext-service[{extra}]'"
    )
