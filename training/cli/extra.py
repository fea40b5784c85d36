"""The extra `train`: what a training needs beside what serving does."""

import importlib.util

from training.errors import TrainingError

# by module: the names of the packages
PACKAGES = {
    "keras": "tensorflow",
    "matplotlib": "matplotlib",
    "mplfonts": "mplfonts",
    "onnx": "onnx",
    "scipy": "scipy",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "tensorboard": "tensorboard",
    "tensorflow": "tensorflow",
    "tf2onnx": "tf2onnx",
}


class ExtraMissing(TrainingError):
    """A command that needs what is not installed."""


def require_extra(command: str) -> None:
    """Raises ExtraMissing unless all of the extra `train` is installed."""
    if missing := sorted({PACKAGES[module] for module in PACKAGES if importlib.util.find_spec(module) is None}):
        raise missing_extra(command, ", ".join(missing))


def missing_extra(command: str, packages: str) -> ExtraMissing:
    """The error of a command that lacks these packages."""
    return ExtraMissing(
        f"resnext {command} needs {packages}, which the extra `train` brings: pip install 'resnext-service[train]'"
    )
