"""One training run, top to bottom: config, data, model, fit, evaluate, export, publish."""

import time
from pathlib import Path

from rich.console import Console

from training import resnext, runtime
from training.checkpoint import Checkpoint
from training.config import TrainConfig
from training.contract import Manifest, ModelRepository
from training.dataset import Split, load, scan
from training.dataset_report import DatasetReport
from training.errors import TrainingError
from training.pipeline import evaluation_batches, steps_per_epoch, training_batches
from training.progress import ProgressCallback, ProgressLog, duration
from training.publish import publish
from training.runtime import keras

CONFIG_FILE = "config.json"
PROGRESS_FILE = "progress.jsonl"
CHECKPOINTS = "checkpoints"
TENSORBOARD = "tensorboard"


class RunError(TrainingError):
    """A run's folder that can not be used as asked."""


def train(
    config: TrainConfig, run: Path, repository: ModelRepository, *, resume: bool = False, console: Console
) -> Manifest:
    """Trains as `config` says and publishes the best epoch as the repository's next version, not yet live.

    All that the run writes lies in `run`: config.json, progress.jsonl, checkpoints, TensorBoard logs. With `resume`
    it goes on from the last checkpoint there; the config has to be the same. Raises DatasetError, RunError,
    CheckpointError, ParityError.
    """
    claim(run, config, resume)
    log = ProgressLog(run / PROGRESS_FILE, console)

    log.phase("checking", f"the images in {config.data}")
    report, splits = read_data(config, run)
    console.print(report.render(), highlight=False)

    log.phase("training", f"on {', '.join(runtime.device_names())}")
    strategy = runtime.set_up(config.precision, config.seed, config.deterministic)
    steps = steps_per_epoch(len(splits["train"]), config.batch_size)
    with strategy.scope():
        model = resnext.build(
            config.architecture,
            config.preprocessing,
            len(report.labels),
            synchronized=strategy.num_replicas_in_sync > 1,
        )
        model.compile(
            optimizer=optimizer(config, steps),
            loss=keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=config.label_smoothing),
            metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")],
        )
    checkpoint = fit(config, run, model, splits, len(report.labels), steps, log, resume)
    seconds = sum(epoch["seconds"] for epoch in checkpoint.history)
    best = checkpoint.state["best"]
    console.print(
        f"best of {len(checkpoint.history)} epochs is {best['epoch']}, validation accuracy {best['rank'][0]:.4f}; "
        f"trained for {duration(seconds)}",
        highlight=False,
    )
    return publish(config, checkpoint.best_weights, checkpoint.history, report, splits, repository, log)


def publish_run(run: Path, repository: ModelRepository, *, console: Console) -> Manifest:
    """Publishes the best epoch so far of the run in `run`, without training. Raises RunError and as `train` does."""
    config = recorded_config(run)
    checkpoint = Checkpoint(run / CHECKPOINTS, [])
    if not checkpoint.load_state():
        raise RunError(f"{run} should hold a checkpoint to publish, no epoch of it was finished")
    log = ProgressLog(run / PROGRESS_FILE, console)
    log.phase("checking", f"the images in {config.data}")
    report, splits = read_data(config, run)
    return publish(config, checkpoint.best_weights, checkpoint.history, report, splits, repository, log)


def recorded_config(run: Path) -> TrainConfig:
    """What `run` was started with. Raises RunError when the folder holds no run."""
    try:
        return TrainConfig.model_validate_json((run / CONFIG_FILE).read_bytes())
    except FileNotFoundError:
        raise RunError(f"there is no run in {run}: {run / CONFIG_FILE} is missing") from None


def claim(run: Path, config: TrainConfig, resume: bool) -> None:
    """Makes `run` this config's folder. Raises RunError when it holds another run, or there is nothing to resume."""
    if resume:
        if (recorded := recorded_config(run)) != config:
            changed = [name for name, value in config if value != getattr(recorded, name)]
            raise RunError(f"a resumed run keeps its config; {', '.join(changed)} would change in {run}")
    elif (run / CONFIG_FILE).exists():
        raise RunError(f"{run} holds a run already: resume it, or name another folder")
    else:
        run.mkdir(parents=True, exist_ok=True)
        (run / CONFIG_FILE).write_text(config.model_dump_json(indent=1))


def read_data(config: TrainConfig, run: Path) -> tuple[DatasetReport, dict[str, Split]]:
    """The dataset's report and its decoded images by split."""
    dataset = scan(config.data, config.val_fraction, config.test_fraction, config.seed)
    return load(dataset, config.preprocessing, run / "cache", strict=config.strict)


def optimizer(config: TrainConfig, steps: int) -> keras.optimizers.Optimizer:
    """The configured optimizer and schedule; `steps` an epoch. Norms and biases do not decay."""
    rate = config.learning_rate
    if config.schedule == "cosine":
        warmup = round(config.warmup_epochs * steps)
        rate = keras.optimizers.schedules.CosineDecay(
            initial_learning_rate=0.0 if warmup else config.learning_rate,
            decay_steps=max(1, config.epochs * steps - warmup),
            warmup_target=config.learning_rate if warmup else None,
            warmup_steps=warmup,
        )
    decay = config.weight_decay or None
    if config.optimizer == "sgd":
        chosen = keras.optimizers.SGD(rate, momentum=0.9, nesterov=True, weight_decay=decay)
    elif config.optimizer == "adamw":
        chosen = keras.optimizers.AdamW(rate, weight_decay=config.weight_decay)
    else:
        chosen = keras.optimizers.Adam(rate, weight_decay=decay)
    chosen.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return chosen


def fit(
    config: TrainConfig,
    run: Path,
    model: keras.Model,
    splits: dict[str, Split],
    classes: int,
    steps: int,
    log: ProgressLog,
    resume: bool,
) -> Checkpoint:
    """Fits the compiled `model`; returns the checkpoint, which knows the history and the best weights."""
    rules = []
    if config.early_stopping_patience:
        rules.append(
            keras.callbacks.EarlyStopping(monitor="val_accuracy", mode="max", patience=config.early_stopping_patience)
        )
    if config.schedule == "plateau":
        rules.append(
            keras.callbacks.ReduceLROnPlateau(
                monitor="val_loss", factor=0.5, patience=3, min_delta=1e-4, min_lr=1e-6, verbose=0
            )
        )
    checkpoint = Checkpoint(run / CHECKPOINTS, rules)
    done = checkpoint.restore(model) if resume else 0
    if checkpoint.state["finished"]:
        return checkpoint
    observers = [ProgressCallback(log, config.epochs, done, steps, config.batch_size)]
    if config.tensorboard:
        observers.append(keras.callbacks.TensorBoard(run / TENSORBOARD, histogram_freq=1, write_graph=False))
    model.fit(
        training_batches(splits["train"], classes, config.batch_size, config.augmentation, config.seed, done),
        steps_per_epoch=steps,
        validation_data=evaluation_batches(splits["val"], classes, config.batch_size),
        initial_epoch=done,
        epochs=config.epochs,
        shuffle=False,  # the pipeline does
        class_weight=class_weight(splits["train"], classes) if config.class_weight == "balanced" else None,
        callbacks=[*rules, checkpoint, *observers],
        verbose=0,
    )
    return checkpoint


def class_weight(split: Split, classes: int) -> dict[int, float]:
    """Weights that give every class the same sum, with mean 1 over the images."""
    counts = {label: int((split.labels == label).sum()) for label in range(classes)}
    return {label: len(split) / (classes * count) for label, count in counts.items()}


def new_run(folder: Path, name: str) -> Path:
    """A folder for a run that starts now: `runs/resnext50-20261123-230512`."""
    return folder / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
