"""`resnext weights publish`: a version that serves published weights as they are."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import CliPositionalArg

from training.cli.extra import require_extra
from training.cli.models import require_writable
from training.cli.terminal import console
from training.cli.weights_folder import WeightsFolder
from training.contract.manifest import Manifest
from training.contract.names import Name
from training.contract.repository import ModelRepository
from training.jobs.settings import SharedSettings


class PublishWeights(WeightsFolder):
    """Makes a version of a model that serves published weights as they are, with the classes that they name.

    It is active at once where the model has no active version. Nothing is trained, and no accuracy is measured.
    """

    source: CliPositionalArg[str] = Field(description="the weights' name")
    name: Name = Field(description="model name in the repository, as imagenet")
    calibration: Path | None = Field(
        None, description="folder of images to calibrate an INT8 variant with, at least 20; their labels do not matter"
    )
    models: Path | None = Field(
        None, description="folder of the model repository (default: RESNEXT_MODELS, else models)"
    )
    activate: bool = Field(False, description="make the version active in place of another one")

    def cli_cmd(self) -> None:
        require_extra("weights publish")
        from training.phases.publish_weights import publish_weights

        models = self.models or SharedSettings().models
        require_writable(models)
        repository = ModelRepository(models, self.name)
        manifest = publish_weights(self.source, self.store, repository, self.calibration, _say)
        _say(self._made_known(repository, manifest))

    def _made_known(self, repository: ModelRepository, manifest: Manifest) -> str:
        """Activates the version where it should be, and returns what has become of it."""
        version, active = manifest.version, repository.active()
        made = f"version {version} of {self.name}, {len(manifest.labels)} classes, {', '.join(manifest.variants)}"
        if active is None or self.activate:
            repository.activate(version, expected=active)
            return f"{made}, is active: resnext serve --model {self.name} serves it"
        return (
            f"{made}, is kept aside, version {active} is active: resnext models activate {version} --name {self.name} "
            "makes it active"
        )


def _say(line: str) -> None:
    console.print(line, highlight=False, markup=False)
