"""The extra `train`: the packages that a training needs and serving does not."""

import importlib.util

from training.errors import TrainingError

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


class ExtraMissing(TrainingError):
    """A command that needs a package which is not installed."""


def require_extra(command: str) -> None:
    """Raises ExtraMissing unless all of the extra `train` is installed."""
    if missing := sorted({PACKAGES[module] for module in PACKAGES if importlib.util.find_spec(module) is None}):
        raise missing_extra(command, ", ".join(missing))


def missing_extra(command: str, packages: str) -> ExtraMissing:
    """Returns the error of a command that lacks these packages."""
    return ExtraMissing(
        f"resnext {command} needs {packages}, which the extra `train` brings: pip install 'resnext-service[train]'"
    )
