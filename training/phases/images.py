"""The pixels of a run: the files that the checking phase accepted, decoded where it has not kept their pixels."""

from training.contract.manifest import Preprocessing
from training.datasets.loading import Split, load, read_samples
from training.runs.run import Run


def images_of(run: Run, *splits: str, preprocessing: Preprocessing | None = None) -> dict[str, Split]:
    """Decodes the images of these splits, by default with the preprocessing of the run's own config.

    A file that is decoded again is hashed too: one that changed after the check stops the run. Raises DatasetError.
    """
    return load(read_samples(run.samples), preprocessing or run.config().preprocessing, run.folder, splits)
