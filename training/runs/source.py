"""The weights that a run starts from: those of a version, or published ones. Nothing here needs TensorFlow."""

from typing import Any

from pydantic import BaseModel

from training.config import InitialWeights, TrainConfig
from training.contract.architecture import Architecture, name_of
from training.contract.manifest import WEIGHTS_FILE, Preprocessing, WeightsOrigin
from training.contract.repository import ModelRepository
from training.errors import TrainingError
from training.runs.run import Run
from training.system.durable import replace_text
from training.weights.store import WeightsStore

HOW_TO_GET_WEIGHTS = "resnext weights pull timm/resnext50_32x4d.tv_in1k"


class InitialWeightsError(TrainingError):
    """Weights that this training cannot start from."""


class MethodError(TrainingError):
    """A method that needs weights to start from, in a training that has none."""


class Source(BaseModel):
    """The weights that a run starts from, as it pins them in its `init.json`.

    Either `weights` is set, or `model` and `version` are. `backbone` names all parameters but the head's: two sources
    with the same one give the same features.
    """

    weights: str | None = None
    model: str | None = None
    version: int | None = None
    backbone: str
    labels: list[str]
    architecture: Architecture
    preprocessing: Preprocessing
    origin: WeightsOrigin | None = None

    def __str__(self) -> str:
        return f"weights:{self.weights}" if self.weights else f"{self.model}@{self.version}"

    def settings(self) -> dict[str, Any]:
        """Returns the settings of a training that takes images as these weights do."""
        pixels = self.preprocessing.model_dump(exclude={"height", "width"})
        return {"image_size": self.preprocessing.height, **pixels, "architecture": self.architecture.model_dump()}


def find_source(init: InitialWeights, repository: ModelRepository, weights: WeightsStore) -> Source | None:
    """Returns the weights that `init` names, None for random ones. `repository` is that of the run's own model.

    Raises WeightsError, ContractError, and InitialWeightsError where a version cannot be started from.
    """
    if init.weights:
        record = weights.record(init.weights)
        return Source(
            weights=record.name,
            backbone=record.sha256,
            labels=record.labels,
            architecture=record.architecture,
            preprocessing=record.preprocessing,
            origin=WeightsOrigin(
                name=record.name,
                origin=record.origin,
                revision=record.revision,
                licence=record.licence,
                sha256=record.sha256,
            ),
        )
    return _of_version(init, repository) if init.of_version else None


def _of_version(init: InitialWeights, repository: ModelRepository) -> Source:
    if init.model:
        repository = ModelRepository(repository.root, init.model)
    version = init.version or repository.active()
    if version is None:
        raise InitialWeightsError(f"init names model {repository.name!r}, which has no active version")
    manifest = repository.manifest(version)
    if manifest.architecture is None:
        raise InitialWeightsError(f"version {version} should say its architecture, its manifest has none known here")
    if WEIGHTS_FILE not in manifest.files:
        raise InitialWeightsError(f"version {version} should hold {WEIGHTS_FILE}, it holds {', '.join(manifest.files)}")
    return Source(
        model=repository.name,
        version=version,
        backbone=manifest.backbone or manifest.files[WEIGHTS_FILE],
        labels=manifest.labels,
        architecture=manifest.architecture,
        preprocessing=manifest.preprocessing,
        origin=manifest.weights,
    )


def pinned_source(run: Run, config: TrainConfig, repository: ModelRepository, weights: WeightsStore) -> Source | None:
    """Returns the weights that the run starts from, None for random ones. A resumed run gets the same ones again.

    Raises what `find_source` raises, and InitialWeightsError when they belong to another network.
    """
    if not run.init.exists():
        source = find_source(InitialWeights.parse(config.init), repository, weights)
        if source is None:
            return None
        _check_architecture(source, config.architecture)
        replace_text(run.init, source.model_dump_json(indent=1))
    return read_source(run)


def read_source(run: Run) -> Source | None:
    """Returns the weights that the run has pinned, None for random ones. Raises RunError."""
    return (
        run.read(run.init, Source, "the run starts from the weights that `init` names now")
        if run.init.exists()
        else None
    )


def _check_architecture(source: Source, wanted: Architecture) -> None:
    if source.architecture != wanted:
        raise InitialWeightsError(
            f"{source} is {name_of(source.architecture)} with depths {source.architecture.depths}, this training is "
            f"{name_of(wanted)} with depths {wanted.depths}"
        )


def require_weights(config: TrainConfig) -> None:
    """Raises MethodError where the method needs weights and the training starts from random ones."""
    if config.method in ("head", "finetune") and InitialWeights.parse(config.init) == InitialWeights():
        raise MethodError(
            f"method {config.method} needs weights to start from, and init is {config.init}: name them with init, as "
            f"weights:tv_in1k or live. To get published weights: {HOW_TO_GET_WEIGHTS}"
        )


def with_source(settings: dict[str, Any], repository: ModelRepository, weights: WeightsStore) -> dict[str, Any]:
    """Returns settings that name the weights to start from, with the values that these weights ask for.

    `settings` holds what a person has set and nothing else. `auto`, and no `init`, become the default of the published
    weights, or random where there are none or the settings name another network. Raises what `find_source` raises; a
    wrong value is left for TrainConfig to refuse.
    """
    init = settings.get("init", "auto")
    if chosen := init == "auto":
        default = None if settings.get("method") == "scratch" else weights.default()
        init = f"weights:{default}" if default else "random"
    try:
        source = find_source(InitialWeights.parse(init), repository, weights)
        if source and chosen and "architecture" in settings:
            wanted = Architecture.model_validate(settings["architecture"])
            source, init = (source, init) if wanted == source.architecture else (None, "random")
    except (TypeError, AttributeError, ValueError):
        return settings
    if source is None:
        return {**settings, "init": init}
    recipe = {} if settings.get("method") == "scratch" else {"recipe": "few"}
    return {**_settings_of(source, settings), **recipe, **settings, "init": init}


def _settings_of(source: Source, settings: dict[str, Any]) -> dict[str, Any]:
    """Returns the weights' own settings, at another size that a person has set in proportion."""
    own = source.settings()
    if own["resize"] is not None:
        wanted = int(settings.get("image_size", own["image_size"]))
        own["resize"] = max(wanted, round(own["resize"] * wanted / own["image_size"]))
        if settings.get("resize_mode", "crop") != "crop":
            own["resize"] = None
    return own
