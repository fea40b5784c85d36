"""The publishing phase: the package becomes a version, and the live one where the gate let it pass."""

import importlib.metadata
import platform
import shutil

from training.contract.manifest import DatasetRecord, Manifest
from training.contract.repository import ActiveChanged, ModelRepository
from training.contract.verdict import Verdict
from training.datasets.dataset import read_samples
from training.datasets.report import DatasetReport
from training.datasets.seen import write_seen
from training.phases.gate import gate
from training.phases.quantize import make_variants
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
from training.system.files import link_or_copy

LIBRARIES = ("tensorflow", "keras", "tf2onnx", "onnx", "onnxruntime-gpu", "onnxruntime", "pillow", "numpy")


def publish(run: Run, repository: ModelRepository, log: ProgressLog) -> PublishRecord:
    """Publishes the package, rejected or not, and activates it when the gate let it pass.

    Everything is put into a staging folder and appears in one step, or not at all. Where another version went live
    since the candidate was judged, it is judged again. A run that was cut off in here finds its own version. Of a
    package that is published the run keeps the report alone: the rest exists once.
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
            verdict = gate(run, repository, log)
            if not done and verdict.passed and run.record("quantizing", QuantizationRecord).skipped:
                run.finish("quantizing", make_variants(run, verdict, log))
            run.finish("gating", verdict)
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


def make_manifest(run: Run, repository: ModelRepository) -> Manifest:
    """What the phases found out, as the version's manifest."""
    config, dataset = run.config(), run.record("checking", DatasetReport)
    verification = run.record("verifying", VerificationRecord)
    return Manifest(
        name=config.name,
        created=verification.created,
        labels=dataset.labels,
        preprocessing=config.preprocessing,
        variants=run.record("quantizing", QuantizationRecord).variants,
        metrics=verification.metrics,
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
        init_version=run.record("training", TrainingRecord).init_version if run.done("training") else None,
        run=run.name,
        gate=verdict_of(run),
    )


def library_versions() -> dict[str, str]:
    """What made this version: Python and the libraries that touch a number."""
    installed = {d.metadata["Name"].lower(): d.version for d in importlib.metadata.distributions()}
    return {"python": platform.python_version(), **{name: installed[name] for name in LIBRARIES if name in installed}}
