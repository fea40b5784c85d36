"""The training phase: data, model, optimizer, fit. It leaves the best epoch's weights."""

import time

import numpy as np
from numpy.typing import NDArray

from training.config import TrainConfig
from training.contract.intervals import Proportion
from training.contract.repository import ModelRepository
from training.datasets.loading import Split
from training.datasets.report import DatasetReport
from training.environment import Places
from training.heads.folding import read_head
from training.network import optimizers, resnext, runtime
from training.network.averaging import AveragedValidation
from training.network.checkpoint import Checkpoint
from training.network.divergence import Diverged
from training.network.histograms import Histograms
from training.network.initial_weights import load_source
from training.network.pipeline import evaluation_batches, steps_per_epoch, training_batches
from training.network.progress_bar import ProgressCallback
from training.network.published_weights import OUR_HEAD
from training.network.runtime import keras
from training.network.time_budget import TimeBudget
from training.phases.images import images_of
from training.recipes import EPOCHS, SHORT_EPOCH, stretched
from training.runs.console import ProgressLog, duration
from training.runs.plan import Plan
from training.runs.progress import read_progress
from training.runs.records import TrainingRecord
from training.runs.run import Run
from training.runs.source import Source
from training.weights.store import WeightsStore


def train(run: Run, plan: Plan, source: Source | None, repository: ModelRepository, log: ProgressLog) -> TrainingRecord:
    """Trains all layers of the run's network, from its last checkpoint where there is one.

    A fine-tuning begins with the head that the run has published. Raises DatasetError, PrecisionError, CheckpointError,
    WeightsError, ContractError, Diverged.
    """
    earlier, begun = read_progress(run.progress).seconds_of("training"), time.monotonic()
    config = planned(run.config(), plan)
    log.announce("training", f"on {', '.join(runtime.device_names())}")
    labels = run.record("checking", DatasetReport).labels
    splits = images_of(run, "train", "val")

    strategy = runtime.set_up(config.precision, config.seed, config.deterministic)
    steps = steps_per_epoch(len(splits["train"]), config.batch_size)
    with strategy.scope():
        model = compiled(config, len(labels), steps, synchronized=strategy.num_replicas_in_sync > 1)
        budget = [TimeBudget(config.time_budget, log.tell)] if config.time_budget else []
        checkpoint = Checkpoint(run.checkpoints, [*stopping_rules(config, steps), *budget], config.checkpoint_every)
        if not checkpoint.restore(model, log.tell) and source:
            load_source(model, source, labels, repository, WeightsStore(Places().weights))
            if config.method == "finetune":
                head = read_head(run.of_head().train_head)
                model.get_layer(OUR_HEAD).set_weights([head.kernel, head.bias])
    for rule in budget:
        rule.spent = checkpoint.seconds
    if not checkpoint.state["stopped"]:
        fit(config, run, model, splits, log, checkpoint)

    seconds = earlier + time.monotonic() - begun
    best = checkpoint.state["best"]
    val = Proportion.of(best["rank"][0], len(splits["val"]))
    log.console.print(
        f"best epoch {best['epoch']} of {len(checkpoint.history)}: val accuracy {val}; trained for {duration(seconds)}",
        highlight=False,
    )
    return TrainingRecord(
        method=plan.method,
        epochs=len(checkpoint.history),
        best_epoch=best["epoch"],
        val_accuracy=best["rank"][0],
        seconds=seconds,
    )


def planned(config: TrainConfig, plan: Plan) -> TrainConfig:
    """Returns the settings with the method and the epochs of the plan."""
    return config.model_copy(update={"method": plan.method, "epochs": plan.epochs or config.epochs})


def epochs_of(config: TrainConfig, steps: int) -> int:
    """Returns the number of epochs, each of `steps` steps: the config's, or the default."""
    return config.epochs or stretched(EPOCHS, steps)


def compiled(config: TrainConfig, classes: int, steps: int, *, synchronized: bool) -> keras.Model:
    """Returns the network with optimizer, loss and metric, ready for `fit`; `steps` is the length of an epoch."""
    model = resnext.build(config.architecture, config.preprocessing, classes, synchronized=synchronized)
    if config.method == "finetune":
        freeze(model, config.freeze)
    chosen = optimizer(config, steps)
    chosen.statistics = model.non_trainable_variables
    if config.method == "finetune":
        chosen.rates = {OUR_HEAD: config.head_rate}
    model.compile(
        optimizer=chosen,
        loss=keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=config.label_smoothing),
        metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")],
    )
    return model


def freeze(model: keras.Model, part: str) -> None:
    """Keeps BatchNorm as it is, and with `part` stages:N also the stem and the first N stages.

    Batches of few images have other statistics than those that the head was fitted to: learning them costs 12 points of
    accuracy.
    """
    stages = int(part.removeprefix("stages:")) if part != "none" else 0
    frozen = ("stem", *(f"stage{i}_" for i in range(1, stages + 1))) if stages else ()
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization) or layer.name.startswith(frozen):
            layer.trainable = False


def optimizer(config: TrainConfig, steps: int) -> keras.optimizers.Optimizer:
    """Returns the configured optimizer and schedule; `steps` is an epoch's length. Norms and biases do not decay."""
    rate = config.learning_rate
    if config.schedule == "cosine":
        # stretched as the epochs are; where their number is given, the warm-up has to fit into them
        warmup = round(config.warmup_epochs * (steps if config.epochs else max(steps, SHORT_EPOCH)))
        rate = keras.optimizers.schedules.CosineDecay(
            initial_learning_rate=0.0 if warmup else config.learning_rate,
            decay_steps=max(1, epochs_of(config, steps) * steps - warmup),
            warmup_target=config.learning_rate if warmup else None,
            warmup_steps=warmup,
        )
    decay = config.weight_decay or None
    average = {"use_ema": bool(config.ema), "ema_momentum": config.ema}
    if config.optimizer == "sgd":
        chosen = optimizers.SGD(rate, momentum=0.9, nesterov=True, weight_decay=decay, **average)
    elif config.optimizer == "adamw":
        chosen = optimizers.AdamW(rate, weight_decay=config.weight_decay, **average)
    else:
        chosen = optimizers.Adam(rate, weight_decay=decay, **average)
    chosen.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return chosen


def stopping_rules(config: TrainConfig, steps: int) -> list[keras.callbacks.Callback]:
    """Returns the callbacks that watch the validation figures: early stopping and the plateau schedule.

    `steps` is the length of an epoch.
    """
    rules = []
    if config.early_stopping_patience:
        patience = stretched(config.early_stopping_patience, steps)
        rules.append(keras.callbacks.EarlyStopping(monitor="val_accuracy", mode="max", patience=patience))
    if config.schedule == "plateau":
        rules.append(
            keras.callbacks.ReduceLROnPlateau(
                monitor="val_loss", factor=0.5, patience=stretched(3, steps), min_delta=1e-4, min_lr=1e-6, verbose=0
            )
        )
    return rules


def fit(
    config: TrainConfig,
    run: Run,
    model: keras.Model,
    splits: dict[str, Split],
    log: ProgressLog,
    checkpoint: Checkpoint,
) -> None:
    """Fits the compiled `model` from the checkpoint's epoch and step to the end. Raises Diverged."""
    classes, steps = model.output_shape[-1], steps_per_epoch(len(splits["train"]), config.batch_size)
    epoch, step, epochs = checkpoint.epochs_done, checkpoint.steps_done, epochs_of(config, steps)
    progress = ProgressCallback(log, epochs, steps, config.batch_size, epoch, step)
    callbacks = [AveragedValidation(), *checkpoint.others, checkpoint, progress]
    if config.tensorboard:
        callbacks += [
            keras.callbacks.TensorBoard(run.tensorboard, write_graph=False),
            Histograms(run.tensorboard),
        ]

    weights = class_weights(splits["train"], classes) if config.class_weight == "balanced" else None

    def go_on(epoch: int, step: int, epochs: int) -> None:
        model.fit(
            training_batches(
                splits["train"], classes, config.batch_size, config.augmentation, config.seed, epoch, step, weights
            ),
            steps_per_epoch=steps - step,
            validation_data=evaluation_batches(splits["val"], classes, config.batch_size),
            initial_epoch=epoch,
            epochs=epochs,
            shuffle=False,  # the pipeline shuffles
            callbacks=callbacks,
            verbose=0,
        )

    try:
        if step:  # Keras wants epochs of one length, so the rest of an interrupted epoch is a fit of its own
            go_on(epoch, step, epoch + 1)
            epoch += 1
        if epoch < epochs and not checkpoint.state["stopped"]:
            go_on(epoch, 0, epochs)
    except Diverged as error:
        checkpoint.keep_best()
        best = checkpoint.state["best"]
        kept = f"; the weights of epoch {best['epoch']} are kept" if best else ""
        raise Diverged(f"{error}; lower the learning rate, it is {config.learning_rate:g}{kept}") from None


def class_weights(split: Split, classes: int) -> NDArray[np.float32]:
    """Returns weights [classes] that give every class the same sum, with mean 1 over the images."""
    counts = np.bincount(split.labels, minlength=classes)
    return (len(split) / (classes * counts)).astype(np.float32)
