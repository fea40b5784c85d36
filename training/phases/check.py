"""The checking phase: every image is read once, and later phases train and test on exactly what was read here.

The pixels of a few hundred images are kept in the run's folder until it has published.
"""

from training.datasets.baseline import baseline
from training.datasets.check import check_dataset
from training.datasets.dataset import list_dataset
from training.datasets.kept_pixels import PixelWriter
from training.datasets.loading import write_samples
from training.datasets.report import DatasetReport
from training.runs.console import ProgressLog
from training.runs.report_table import print_report
from training.runs.run import Run


def check(run: Run, log: ProgressLog) -> DatasetReport:
    """Reads every file once, keeps the list of usable files, and measures the baseline. Raises DatasetError."""
    config = run.config()
    log.announce("checking", f"the images in {config.data}")
    dataset = list_dataset(config.data, config.val_fraction, config.test_fraction, config.seed)
    preprocessing = config.preprocessing
    with PixelWriter(run.folder, preprocessing, len(dataset.samples)) as pixels:
        report, samples = check_dataset(
            dataset, preprocessing, strict=config.strict, progress=log.files, keep=pixels.add
        )
    report = report.model_copy(update={"baseline": baseline(samples, preprocessing, run.folder)})
    print_report(report, log.console)
    write_samples(run.samples, samples)
    return report
