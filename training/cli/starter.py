"""`resnext starter`: a first model, so that there is something to serve."""

from pathlib import Path

from pydantic import BaseModel, Field

from training.cli.extra import require_extra
from training.cli.terminal import console
from training.cli.train import MODELS, Train
from training.config import MODEL_NAME
from training.contract.names import Name
from training.contract.repository import ModelRepository
from training.jobs.starter import starter_settings


class TrainStarter(BaseModel):
    """Trains a first model on scikit-learn's handwritten digits, unless a version is active already."""

    models: Path = Field(MODELS, description="folder of the model repository")
    name: Name = Field(MODEL_NAME, description="model name in the repository")

    def cli_cmd(self) -> None:
        active = ModelRepository(self.models, self.name).active()
        if active is not None:
            _say(f"version {active} of {self.name} is active in {self.models}: no starter is needed")
            return
        require_extra("starter")
        from training.datasets.public import make_digits

        _say(f"no version of {self.name} is active in {self.models}: training the starter, minutes on two cores")
        settings = starter_settings()
        data = Path(settings["data"])
        if not data.exists():
            make_digits(data)
        Train.model_validate({**settings, "name": self.name, "models": self.models}).cli_cmd()


def _say(line: str) -> None:
    console.print(line, highlight=False, markup=False)
