"""The training phase of the method head: features of all images, and a logistic regression on them."""

import math
import time

import numpy as np
import onnx

from training.config import TrainConfig
from training.contract.intervals import Proportion
from training.contract.manifest import MODEL_FILE
from training.contract.repository import ModelRepository
from training.datasets.layout import Sample
from training.datasets.loading import read_samples
from training.datasets.report import DatasetReport
from training.environment import Places
from training.exported.classifier import BATCH
from training.exported.evaluate import evaluate
from training.heads.backbone import backbone_of
from training.heads.features import Extractor, Features, FeatureStore, extractor, features_of
from training.heads.folding import write_head
from training.heads.regression import cross_validated, fit, fit_head
from training.recipes import EPOCHS, stretched
from training.runs.console import ProgressLog, duration
from training.runs.progress import read_progress
from training.runs.records import TrainingRecord
from training.runs.run import Run
from training.runs.source import Source
from training.weights.store import WeightsStore

# a training step takes this many times as long as an image's features: derived for 224 x 224 from docs/benchmarks.md
TRAINING = 5


def train_head(run: Run, source: Source, repository: ModelRepository, log: ProgressLog) -> TrainingRecord:
    """Fits a head to the features of the training and validation images, and writes it as the run's `head.npz`.

    A regression needs no images to stop by, so it learns from those of validation too. Their figures are those of the
    cross-validation, in which an image is answered by a head that has not seen it. Raises DatasetError, WeightsError,
    ContractError, GraphError.
    """
    earlier, begun = read_progress(run.progress).seconds_of("training"), time.monotonic()
    config, report = run.config(), run.record("checking", DatasetReport)
    log.announce("training", f"the last layer, on features of {source}")
    samples = read_samples(run.samples)
    features = _features(run, config, source, samples, repository, log)
    labels = np.array([sample.label for sample in samples], np.int32)
    val = np.array([sample.split == "val" for sample in samples])
    seen = np.array([sample.split != "test" for sample in samples])
    classes, balanced = len(report.labels), config.class_weight == "balanced"

    head, strength = fit_head(features[seen], labels[seen], classes, balanced=balanced, seed=config.seed)
    answers = cross_validated(features, labels, classes, strength, balanced=balanced, seed=config.seed)
    across = evaluate(report.labels, labels, answers, [s.name for s in samples]).metrics()
    np.save(run.val_answers, answers[val])
    alone = seen & ~val  # the epochs of a fine-tuning are chosen by validation images: its start must not know them
    write_head(run.train_head, fit(features[alone], labels[alone], classes, strength, balanced=balanced))
    write_head(run.head, head)
    log.tell(
        f"logistic regression, C {strength:g}: cross-validated accuracy over all images "
        f"{Proportion.of(across.accuracy, across.images)}"
    )
    return TrainingRecord(
        method="head",
        epochs=0,
        best_epoch=0,
        val_accuracy=float((answers[val].argmax(1) == labels[val]).mean()),
        seconds=earlier + time.monotonic() - begun,
        cross_validation=across,
    )


def _features(
    run: Run,
    config: TrainConfig,
    source: Source,
    samples: list[Sample],
    repository: ModelRepository,
    log: ProgressLog,
) -> Features:
    """Returns float32 [N, features] for all samples. Makes the backbone's graph where it was not made yet."""
    backbone = backbone_of(config, source)
    graph = run.folder / f"backbone.{MODEL_FILE}"
    if not backbone.take(MODEL_FILE, graph):
        from training.phases.export import export_backbone  # it imports TensorFlow

        log.tell(f"exporting {source} once, for all heads on it")
        export_backbone(config, source, repository, WeightsStore(Places().weights), graph)
        backbone.keep(MODEL_FILE, graph)

    def network() -> Extractor:
        return extractor(onnx.load(graph))

    begun = time.monotonic()

    def progress(done: int, total: int) -> None:
        log.files(done, total)
        if done < total and done == min(BATCH, total):  # the first batch tells
            log.tell(f"features: about {duration((time.monotonic() - begun) * (total / done - 1))} for {total} images")

    store = FeatureStore(Places().derived)
    features, computed = features_of(
        samples, config.preprocessing, store, backbone.key, run.folder, network, progress, log.tell
    )
    seconds = time.monotonic() - begun
    others = ", those of the others were known" if computed < len(samples) else ""
    log.tell(f"features of {len(samples)} images: {computed} computed in {seconds:.1f} s{others}")
    if computed and config.method == "auto":
        images = sum(sample.split == "train" for sample in samples)
        epochs = config.epochs or stretched(EPOCHS, math.ceil(images / config.batch_size))
        whole = TRAINING * epochs * images * seconds / computed
        log.tell(f"to train all layers would take roughly {duration(whole)} on a CPU like this one: --method finetune")
    graph.unlink()
    return features
