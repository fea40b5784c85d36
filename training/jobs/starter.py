"""The starter: a first model, trained on the digits that scikit-learn brings. Here it is queued as a job.

The job is like any other: a user can follow and cancel it, and it goes on after a restart.
"""

import logging
import shutil
import tomllib
from pathlib import Path
from typing import Any

from training.config import TrainConfig
from training.contract.repository import ModelRepository
from training.datasets.store import IMAGES_FOLDER, REVISION_FOLDER, DatasetStore
from training.errors import ContractError
from training.jobs.attempts import new_id
from training.jobs.job import DatasetRef, Job, JobDamaged, JobNotFound
from training.jobs.jobs import Jobs

CONFIG = Path(__file__).with_name("starter.toml")
DATASET = "digits"

logger = logging.getLogger(__name__)


def starter_settings() -> dict[str, Any]:  # Any: a TOML value, which the settings' own model checks
    """Reads the settings of the starter's training; `data` is a folder for the digits."""
    return tomllib.loads(CONFIG.read_text("utf-8"))


async def queue_starter(jobs: Jobs, model: str) -> Job | None:
    """Queues the starter of a model that has no active version. Returns its job, None where a version is active.

    It is queued once: the job of an earlier call stays as it is, even when it was cancelled, has failed or cannot be
    read, where None is returned. So it is where ACTIVE cannot be read: there was a version. Raises DatasetStoreError,
    JobsUnavailable.
    """
    try:
        if ModelRepository(jobs.settings.models, model).active() is not None:
            return None
    except ContractError as error:
        logger.error("there is no need of a starter: %s", error)
        return None
    key = f"starter-{model}"
    try:
        job = await jobs.get(new_id(key))
    except JobDamaged as error:
        logger.error("no version of %s is active, and its starter is of no use: %s", model, error)
        return None
    except JobNotFound:
        config = starter_settings() | {"data": DATASET, "name": model}
        dataset = _digits(DatasetStore(jobs.settings.datasets))
        job, _ = await jobs.submit(TrainConfig.model_validate(config), dataset, key=key)
    logger.info("no version of %s is active; its starter is job %s, %s", model, job.id, job.state)
    return job


def _digits(store: DatasetStore) -> DatasetRef:
    """Adds the digits to the datasets as an upload would, so that they have a report and can be deleted."""
    if DATASET not in store.names():
        work = store.staging()
        try:
            _make_revision(work / REVISION_FOLDER)
            store.commit(work / REVISION_FOLDER, DATASET)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    _, revision, fingerprint = store.resolve(DATASET)
    return DatasetRef(name=DATASET, revision=revision, fingerprint=fingerprint)


def _make_revision(folder: Path) -> None:
    from training.datasets.intake import check_folder, write  # they and scikit-learn take a second to import
    from training.datasets.public import make_digits

    images = folder / IMAGES_FOLDER
    make_digits(images)
    report, samples = check_folder(images, DATASET)
    write(folder, report, sum(sample.path.stat().st_size for sample in samples))
