"""Where a training's weights start when it does not start from random ones: a published version."""

from typing import TYPE_CHECKING

from training.config import Architecture, TrainConfig
from training.contract.manifest import WEIGHTS_FILE, Manifest
from training.contract.repository import ModelRepository
from training.errors import TrainingError
from training.runs.run import Run
from training.system.durable import replace_text

# TensorFlow takes seconds to import: what can be refused without it is refused at once
if TYPE_CHECKING:
    from training.network.runtime import keras

HEAD = "logits"


class InitialWeightsError(TrainingError):
    """A version that this training can not start from."""


def pinned_version(run: Run, init: str, repository: ModelRepository) -> int | None:
    """The version that `init` means, None for random weights; the same one each time the run is continued.

    Raises InitialWeightsError.
    """
    if init == "random":
        return None
    pin = run.folder / "init.txt"
    if not pin.exists():
        version = repository.active() if init == "live" else int(init)
        if version is None:
            raise InitialWeightsError(f"init is live, and model {repository.name!r} has no live version")
        replace_text(pin, f"{version}\n")
    return int(pin.read_text())


def check_initial(config: TrainConfig, repository: ModelRepository, version: int) -> Manifest:
    """The manifest of a version that a training of `config` can start from.

    Raises ContractError, and InitialWeightsError when the version is another network or carries no weights.
    """
    manifest = repository.manifest(version)
    theirs = Architecture.model_validate(manifest.config["architecture"])
    if theirs != config.architecture:
        from training.network.resnext import name_of

        raise InitialWeightsError(
            f"version {version} is {name_of(theirs)} with depths {theirs.depths}, this training is "
            f"{name_of(config.architecture)} with depths {config.architecture.depths}"
        )
    if WEIGHTS_FILE not in manifest.files:
        raise InitialWeightsError(f"version {version} should hold {WEIGHTS_FILE}, it holds {', '.join(manifest.files)}")
    return manifest


def load_initial(
    model: "keras.Model", config: TrainConfig, labels: list[str], repository: ModelRepository, version: int
) -> None:
    """Gives `model` a version's weights; where its labels are others, all but the classifier's.

    The input size may differ: the network is convolutional up to its pooling. Raises as `check_initial`.
    """
    from training.network import resnext

    manifest = check_initial(config, repository, version)
    # a network of its own: to load into one that has an optimizer already, Keras warns of the optimizer's variables
    source = resnext.build(config.architecture, manifest.preprocessing, len(manifest.labels))
    source.load_weights(repository.path(version) / WEIGHTS_FILE)
    for layer in model.layers:
        if layer.name != HEAD or manifest.labels == labels:
            layer.set_weights(source.get_layer(layer.name).get_weights())
