"""The plan of a run's training: its method, and why it was chosen."""

from typing import Literal

from pydantic import BaseModel, ValidationError

from training.runs.run import Run
from training.system.durable import replace_text


class Plan(BaseModel):
    """The way in which a run trains, chosen once: a resumed run keeps it."""

    method: Literal["head", "finetune", "scratch"]
    epochs: int | None = None  # where the time budget allows fewer than the settings


def read_plan(run: Run) -> Plan | None:
    """Returns the run's plan, None before there is one. A damaged one is made again."""
    try:
        return Plan.model_validate_json(run.plan.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def write_plan(run: Run, plan: Plan) -> None:
    """Keeps the plan."""
    replace_text(run.plan, plan.model_dump_json())
