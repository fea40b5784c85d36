"""The pixels of a run: the files that the checking phase accepted, decoded by each phase that needs them."""

from training.contract.manifest import Preprocessing
from training.datasets.loading import Split, load, read_samples
from training.runs.run import Run


def images_of(run: Run, *splits: str, preprocessing: Preprocessing | None = None) -> dict[str, Split]:
    """Decodes the images of these splits, by default with the preprocessing of the run's own config.

    Nothing decoded stays on disk: each call reads, hashes and decodes the files again, so that a file which changed
    after the check stops the run. Raises DatasetError.
    """
    return load(read_samples(run.samples), preprocessing or run.config().preprocessing, run.folder, splits)
