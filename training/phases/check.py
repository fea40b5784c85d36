"""The checking phase: reads every image once and settles which files the later phases use."""

from training.datasets.baseline import baseline
from training.datasets.dataset import scan, survey, write_samples
from training.datasets.report import DatasetReport
from training.runs.console import ProgressLog
from training.runs.run import Run


def check(run: Run, log: ProgressLog) -> DatasetReport:
    """Reads every file once, keeps the list of usable files, and measures the baseline. Raises DatasetError."""
    config = run.config()
    log.announce("checking", f"the images in {config.data}")
    dataset = scan(config.data, config.val_fraction, config.test_fraction, config.seed)
    report, samples = survey(dataset, config.preprocessing, strict=config.strict, progress=log.files)
    report = report.model_copy(update={"baseline": baseline(samples, run.folder)})
    log.tell(report.render())
    write_samples(run.samples, samples)
    return report
