"""The weights of a published version, as the start of a training that does not start from random ones."""

from typing import TYPE_CHECKING

from training.config import TrainConfig
from training.contract.architecture import name_of
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
    """A version that this training cannot start from."""


def pinned_version(run: Run, init: str, repository: ModelRepository) -> int | None:
    """Returns the version that `init` names, None for random weights. A resumed run gets the same one again.

    Raises InitialWeightsError.
    """
    if init == "random":
        return None
    pin = run.folder / "init.txt"
    if not pin.exists():
        version = repository.active() if init == "live" else int(init)
        if version is None:
            raise InitialWeightsError(f"init is live, and model {repository.name!r} has no active version")
        replace_text(pin, f"{version}\n")
    return int(pin.read_text())


def check_initial(config: TrainConfig, repository: ModelRepository, version: int) -> Manifest:
    """Returns the manifest of a version that a training of `config` can start from.

    Raises ContractError, and InitialWeightsError when the version is another network or has no weights.
    """
    manifest = repository.manifest(version)
    theirs = manifest.architecture
    if theirs is None:
        raise InitialWeightsError(f"version {version} should say its architecture, its manifest has none known here")
    if theirs != config.architecture:
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
    """Gives `model` a version's weights, without the last layer's where the labels differ.

    The input size may differ: the network is convolutional up to its pooling. Raises what `check_initial` raises.
    """
    from training.network import resnext

    manifest = check_initial(config, repository, version)
    # a second network: loading into `model`, which has an optimizer, makes Keras warn about the optimizer's variables
    source = resnext.build(config.architecture, manifest.preprocessing, len(manifest.labels))
    source.load_weights(repository.path(version) / WEIGHTS_FILE)
    for layer in model.layers:
        if layer.name != HEAD or manifest.labels == labels:
            layer.set_weights(source.get_layer(layer.name).get_weights())
