"""The publishing phase: makes the package a version, and the active one where the gate passed it."""

import platform
import shutil

from training.contract.manifest import DatasetRecord, Manifest
from training.contract.repository import ActiveChanged, ModelRepository
from training.contract.verdict import Verdict
from training.datasets.loading import read_samples
from training.datasets.report import DatasetReport
from training.datasets.seen import write_seen
from training.runs.console import ProgressLog
from training.runs.progress import read_progress
from training.runs.records import (
    ExportRecord,
    PublishRecord,
    QuantizationRecord,
    TrainingRecord,
    VerificationRecord,
    verdict_of,
)
from training.runs.run import Run
from training.runs.source import read_source
from training.system.files import link_or_copy
from training.system.libraries import versions_of

LIBRARIES = ("tensorflow", "keras", "tf2onnx", "onnx", "onnxruntime-gpu", "onnxruntime", "pillow", "numpy")


def publish(run: Run, repository: ModelRepository, log: ProgressLog) -> PublishRecord:
    """Publishes the package, rejected or not, and activates it when the gate passed it.

    The version appears in one step or not at all. When another version has become active since the candidate was
    judged, the candidate is judged again. A run that was interrupted here finds the version that it had published.
    Afterwards the run keeps only the report: all other files exist once, in the version. Raises ContractError,
    DatasetError, GraphError.
    """
    record = _published(run, repository, log)
    if record.version is not None:
        for path in run.package.iterdir():
            if path.is_file():
                path.unlink()
    return record


def _published(run: Run, repository: ModelRepository, log: ProgressLog) -> PublishRecord:
    while True:
        manifest = make_manifest(run, repository)
        verdict = run.record("gating", Verdict)
        done = repository.published_as(manifest)
        if done and done.version == repository.active():
            return PublishRecord(version=done.version, active=True)
        if verdict.live_version != repository.active():
            _judge_again(run, repository, log, published=done is not None)
            continue
        log.announce("publishing", f"into {repository.folder}")
        if verdict.dry_run:
            return PublishRecord(version=None, active=False)
        if not done:
            with repository.staging() as staged:
                shutil.copytree(run.package, staged, dirs_exist_ok=True, copy_function=link_or_copy)
                write_seen(staged, read_samples(run.samples))
                done = repository.publish(staged, manifest)
        if not verdict.passed:
            return PublishRecord(version=done.version, active=False)
        try:
            repository.activate(done.version, expected=verdict.live_version)
        except ActiveChanged:
            continue
        return PublishRecord(version=done.version, active=True)


def _judge_again(run: Run, repository: ModelRepository, log: ProgressLog, *, published: bool) -> None:
    """Gates once more against the version that is active now, and makes the variants that a rejection had skipped.

    A package that is `published` gets no more files. Gating's record is written last: interrupted before that, the
    candidate counts as not judged again.
    """
    from training.phases.gate import gate  # this and the next take a second to import, and are seldom needed
    from training.phases.quantize import quantize

    verdict = gate(run, repository, log)
    if not published and verdict.passed and run.record("quantizing", QuantizationRecord).skipped:
        run.finish("quantizing", quantize(run, verdict, log))
    run.finish("gating", verdict)


def make_manifest(run: Run, repository: ModelRepository) -> Manifest:
    """Returns the version's manifest, made of the phases' records."""
    config, dataset = run.config(), run.record("checking", DatasetReport)
    verification = run.record("verifying", VerificationRecord)
    training = run.record("training", TrainingRecord) if run.done("training") else None
    source = read_source(run)
    return Manifest(
        name=config.name,
        created=verification.created,
        labels=dataset.labels,
        preprocessing=config.preprocessing,
        variants=run.record("quantizing", QuantizationRecord).variants,
        metrics=verification.metrics
        | ({"cross_validation": across} if training and (across := training.cross_validation) else {}),
        parity=verification.parity,
        config=config.model_dump(mode="json"),
        architecture=config.architecture,
        dataset=DatasetRecord(
            path=dataset.folder, fingerprint=dataset.fingerprint, images=dataset.images, seed=config.seed
        ),
        parameters=run.record("exporting", ExportRecord).parameters,
        training_seconds=read_progress(run.progress).seconds_of("training"),
        libraries=library_versions(),
        parent=repository.active(),
        init=str(source) if source else None,
        init_version=source.version if source and source.model == config.name else None,
        method=training.method if training else None,
        backbone=source.backbone if source and run.head.exists() else None,
        weights=source.origin if source else None,
        run=run.name,
        gate=verdict_of(run),
    )


def library_versions() -> dict[str, str]:
    """Returns the versions of Python and of the libraries that compute with the images or weights."""
    return {"python": platform.python_version(), **versions_of(LIBRARIES)}
