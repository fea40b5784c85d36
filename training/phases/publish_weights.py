"""Publishes weights as a version that serves them as they are: no training, and no labeled images to measure them.

What can be proven without labels is proven: ONNX Runtime answers as Keras does, and the variants as float32 does.
"""

import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from training.config import InitialWeights, Recipe
from training.contract.intervals import Proportion
from training.contract.manifest import (
    CPU_FILE,
    GOLDEN_FILE,
    MODEL_FILE,
    PRECISIONS,
    WEIGHTS_FILE,
    Manifest,
    Parity,
    Precision,
    Variant,
)
from training.contract.parity import same_class
from training.contract.repository import ModelRepository
from training.exported.classifier import Classifier, Probabilities, images_per_second, onnx_classifier
from training.exported.int8 import FEW_IMAGES, QuantizationSearch, Quantizer
from training.heads.backbone import Backbone, backbone_of
from training.heads.folding import Head, put_head
from training.network.initial_weights import load_source
from training.network.layers import has_grouped_kernels
from training.network.published_weights import OUR_HEAD
from training.network.resnext import parameters
from training.network.runtime import keras
from training.network.weights_check import opinions_of
from training.phases.export import export_backbone, filled_network, keras_classifier, traced
from training.phases.publish import library_versions
from training.phases.quantize import NewVariant, keep_int8, write_fp16
from training.phases.unlabeled import Unlabeled, read_unlabeled
from training.phases.verify import GOLDEN_IMAGES, compare, why_left_out, write_for_cpus
from training.runs.source import Source, find_source
from training.system.staging import STAGING_PREFIX
from training.weights.known_photos import KNOWN_PHOTOS, MOST_WRONG, has_known_labels
from training.weights.store import WeightsError, WeightsStore

Say = Callable[[str], object]


def publish_weights(
    name: str, weights: WeightsStore, repository: ModelRepository, calibration: Path | None, say: Say
) -> Manifest:
    """Makes the next version of the repository of the weights `name`; returns its manifest. It is not active yet.

    With a folder of images for `calibration` it gets an INT8 variant. `say` is called with lines for a person. Raises
    WeightsError, CalibrationError, DatasetError, ParityError, GraphError, ContractError.
    """
    source = find_source(InitialWeights(weights=name), repository, weights)
    assert source  # None for random weights only
    if len(source.labels) < 2:
        raise WeightsError(f"a classifier should have at least two classes, the weights {name!r} have one")
    return _Version(source, weights, repository, read_unlabeled(source.preprocessing, calibration, say), say).publish()


class _Version:
    """A version in the making."""

    def __init__(
        self, source: Source, weights: WeightsStore, repository: ModelRepository, images: Unlabeled, say: Say
    ) -> None:
        self.source, self.weights, self.repository, self.images, self.say = source, weights, repository, images, say
        self.recipe = Recipe.model_validate(source.settings())
        self.backbone: Backbone = backbone_of(self.recipe, source)
        self.golden: dict[str, Probabilities] = {}
        self.variants: dict[str, Variant] = {}

    def publish(self) -> Manifest:
        """Makes all files in a hidden folder of the repository, and renames it."""
        with self.repository.staging() as package:
            network = self._network(exported=True)
            network.save_weights(package / WEIGHTS_FILE)
            self.say(f"exporting {self.source}: Keras -> ONNX")
            self._write_graph(network, package / MODEL_FILE)
            reference = self._answers_of_keras(network)
            answers = onnx_classifier(package / MODEL_FILE)(self.images.judging)
            parity = compare(reference, answers)
            self.say(
                f"same class on {parity.top1_equal} of {parity.images} images, "
                f"probabilities within {parity.max_abs_difference:.1e}"
            )
            self._say_what_it_sees(reference)
            self.golden[PRECISIONS["fp32"].golden] = reference
            served = self._add_fp32(package, answers)
            with tempfile.TemporaryDirectory(dir=self.repository.folder, prefix=STAGING_PREFIX) as folder:
                for variant in self._new_variants(package, reference, Path(folder)):
                    self._judge(package, variant, answers, served)
            # Any: savez has a flag of its own among its arguments
            golden: dict[str, Any] = {name: rows[:GOLDEN_IMAGES] for name, rows in self.golden.items()}
            np.savez(package / GOLDEN_FILE, images=self.images.judging[:GOLDEN_IMAGES], **golden)
            return self.repository.publish(package, self._manifest(parity, parameters(network)))

    def _manifest(self, parity: Parity, parameters: dict[str, int]) -> Manifest:
        return Manifest(
            name=self.repository.name,
            created=datetime.now(UTC),
            labels=self.source.labels,
            preprocessing=self.source.preprocessing,
            variants=self.variants,
            metrics={},  # no labeled image has measured it
            parity=parity,
            config={},
            architecture=self.source.architecture,
            parameters=parameters,
            training_seconds=0,
            libraries=library_versions(),
            parent=self.repository.active(),
            init=str(self.source),
            backbone=self.source.backbone,
            weights=self.source.origin,
        )

    def _network(self, *, exported: bool) -> keras.Model:
        def fill(network: keras.Model) -> None:
            load_source(network, self.source, self.source.labels, self.repository, self.weights)

        return filled_network(fill, self.recipe, len(self.source.labels), exported=exported)

    def _write_graph(self, network: keras.Model, target: Path) -> None:
        """Puts the head into the graph of its backbone, which is exported where no head on it was made yet."""
        if not self.backbone.take(MODEL_FILE, target):
            export_backbone(self.recipe, self.source, self.repository, self.weights, target)
            self.backbone.keep(MODEL_FILE, target)
        put_head(target, Head(*network.get_layer(OUR_HEAD).get_weights()), self.source.labels)

    def _answers_of_keras(self, network: keras.Model) -> Probabilities:
        if not has_grouped_kernels():  # without them TensorFlow on this device cannot run the exported graph
            network = self._network(exported=False)
        return keras_classifier(traced(network, self.source.preprocessing))(self.images.judging)

    def _say_what_it_sees(self, reference: Probabilities) -> None:
        if not has_known_labels(self.source.labels):
            return
        opinions = opinions_of(reference[: len(KNOWN_PHOTOS)], self.source.labels)
        self.say(f"it says of {'; '.join(map(str, opinions))}")
        if (wrong := sum(not opinion.right for opinion in opinions)) > MOST_WRONG:
            self.say(
                f"note: it names {wrong} of {len(opinions)} photos of known things wrongly: the weights are hardly "
                f"what they are said to be (resnext weights check {self.source.weights})"
            )

    def _add_fp32(self, package: Path, answers: Probabilities) -> Classifier:
        """Writes the copy for CPUs, unless its answers differ; returns what a CPU serves."""
        write_for_cpus(package / MODEL_FILE, package / CPU_FILE)
        served = onnx_classifier(package / CPU_FILE)
        note = why_left_out(answers, served(self.images.judging))
        if note:
            self.say(note)
            (package / CPU_FILE).unlink()
            served = onnx_classifier(package / MODEL_FILE)
        speeds = images_per_second([served], self.images.judging)
        self.variants["fp32"] = Variant(
            file=MODEL_FILE, cpu_file=None if note else CPU_FILE, images_per_second=speeds[0] if speeds else None
        )
        return served

    def _new_variants(self, package: Path, reference: Probabilities, folder: Path) -> Iterator[NewVariant]:
        if len(self.images.calibrating):
            yield self._int8(package, reference, folder)
        path = folder / PRECISIONS["fp16"].file
        yield NewVariant("fp16", path, write_fp16(package / MODEL_FILE, path))

    def _int8(self, package: Path, reference: Probabilities, folder: Path) -> NewVariant:
        """Calibrates INT8. The class that Keras names counts as the right one. Later heads on the backbone take it."""
        self.say(f"INT8, calibrated on {len(self.images.calibrating)} images")
        quantizer = Quantizer(package / MODEL_FILE, self.images.calibrating, folder)
        search = QuantizationSearch(quantizer, self.images.judging, reference.argmax(1), reference)
        best = search.best(self.recipe)
        keep_int8(self.backbone, best)
        return NewVariant("int8", best.path, onnx_classifier(best.path), best.method, best.float_blocks)

    def _judge(self, package: Path, variant: NewVariant, fp32: Probabilities, served: Classifier) -> None:
        """Moves the variant's file into the package, or says why it is left out."""
        name, answers = variant.precision, variant.classify(self.images.judging)
        agreement = Proportion(int(same_class(fp32, answers).sum()), len(answers))
        figures = f"{name}: names float32's class on {agreement.count} of {agreement.images} images"
        if why := why_unfit(name, agreement, float(np.abs(answers - fp32).max()), self.recipe.gate.agreement):
            self.say(f"{figures}; it is left out: {why}")
            return
        speeds = images_per_second([served, variant.classify], self.images.judging) if name == "int8" else None
        self.say(figures + (f"; {speeds[1] / speeds[0]:.2f} times as fast" if speeds else ""))
        variant.path.replace(package / PRECISIONS[name].file)
        self.golden[PRECISIONS[name].golden] = answers
        self.variants[name] = Variant(
            file=PRECISIONS[name].file,
            agreement=agreement.share,
            images_per_second=speeds[1] if speeds else None,
            calibration=variant.calibration,
            float_blocks=list(variant.float_blocks),
        )


def why_unfit(name: Precision, agreement: Proportion, difference: float, least: float) -> str | None:
    """Returns why a variant is left out, None where it is kept.

    FP16 rounds and does nothing else, so its probabilities have to be close: four photos are too few to count classes.
    """
    if name == "fp16":
        tolerance = PRECISIONS[name].tolerance
        if difference <= tolerance:  # NaN is not
            return None
        return f"its probabilities should be within {tolerance:g} of float32's, they differ by up to {difference:.2g}"
    if agreement.images - agreement.count <= FEW_IMAGES or agreement.share >= least:
        return None
    return f"it should do so on {100 * least:g} % of them, or on all but {FEW_IMAGES}"
