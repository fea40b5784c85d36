"""The files of a version: how one is opened, and the checks that it has to pass before it serves."""

import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from app.execution.opened import Opened
from app.execution.provider import PROVIDERS, Provider
from app.execution.session import Execution
from training.contract.manifest import GOLDEN_FILE, INPUT_NAME, OUTPUT_NAME, PRECISIONS, Manifest, Precision
from training.contract.parity import same_class


class ModelError(Exception):
    """A version that cannot be served here; the message says what was expected and what came."""


@dataclass(frozen=True)
class Package:
    """A version's files on a provider: which precisions may be served, the lower first, and in which batch sizes."""

    manifest: Manifest
    folder: Path
    provider: Provider
    precisions: list[Precision]
    sizes: list[int]

    def file(self, precision: Precision) -> str:
        """Returns the name of the file that the provider runs."""
        return self.manifest.variants[precision].file_on(self.provider)

    def network(self) -> str:
        """Returns a key that versions share when they run equally fast, whatever their weights.

        It holds architecture, input size, number of classes and files. Without an architecture in the manifest the key
        is this version's own.
        """
        files = [(name, self.file(name), self.manifest.variants[name].float_blocks) for name in self.precisions]
        whose = self.manifest.architecture or [self.manifest.files[file] for _, file, _ in files]
        return repr((whose, self.manifest.preprocessing, len(self.manifest.labels), files))

    def open(self, execution: Execution, precision: Precision) -> Opened:
        """Opens the file of a precision. Raises ModelError when it breaks the contract or cannot be opened."""
        file = self.file(precision)
        try:
            runner = execution.open(self.folder / file, precision, self.manifest.preprocessing.shape, self.sizes)
        except Exception as error:  # onnxruntime raises types of its own, with no base but Exception
            raise ModelError(f"{file} cannot be opened on {PROVIDERS[self.provider].name}: {error}") from error
        _check_graph(runner.session, self.manifest, file)
        return Opened(runner, self.manifest, precision, self.provider, execution.turns)

    def check(self, opened: Opened) -> None:
        """Raises ModelError unless the golden images have the answers that the package records."""
        images, expected = self._golden(opened.precision)
        # one by one: requests that come meanwhile wait for one run
        _check_answers(opened.precision, np.concatenate([opened.run(image[None]) for image in images]), expected)

    def check_sizes(self, opened: Opened, sizes: Iterable[int]) -> None:
        """Checks the golden images in each batch size, which has its own kernels, and perhaps a captured graph.

        Raises ModelError.
        """
        images, expected = self._golden(opened.precision)
        for size in sizes:
            rows = np.arange(size) % len(images)
            _check_answers(opened.precision, opened.run(images[rows]), expected[rows])

    def _golden(self, precision: Precision) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Reads the images that were kept with the version, and their probabilities at this precision."""
        path, shape, classes = self.folder / GOLDEN_FILE, self.manifest.preprocessing.shape, len(self.manifest.labels)
        try:
            with path.open("rb") as file, np.load(file) as golden:  # numpy leaves a file open that it cannot read
                images, expected = golden["images"], golden[PRECISIONS[precision].golden]
        except (OSError, TypeError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise ModelError(f"{path.name} should hold images and probabilities: {error}") from error
        n = len(images)
        if not n or (images.dtype, images.shape[1:], expected.shape) != (np.uint8, shape, (n, classes)):
            raise ModelError(
                f"{path.name} should hold uint8 images {list(shape)}, at least one, and {classes} probabilities of "
                f"each, it has {images.dtype} {list(images.shape)} and {list(expected.shape)}"
            )
        return images, expected


def _check_graph(session: onnxruntime.InferenceSession, manifest: Manifest, file: str) -> None:
    """Compares names, types and shapes with the contract and the manifest. Raises ModelError."""
    shape = list(manifest.preprocessing.shape)
    _check_tensor(f"{file}: inputs", session.get_inputs(), INPUT_NAME, "tensor(uint8)", shape)
    _check_tensor(f"{file}: outputs", session.get_outputs(), OUTPUT_NAME, "tensor(float)", [len(manifest.labels)])


def _check_tensor(where: str, tensors: list[onnxruntime.NodeArg], name: str, element: str, shape: list[int]) -> None:
    expected = f"{name} {element} [N, {', '.join(map(str, shape))}]"
    actual = "; ".join(f"{t.name} {t.type} {t.shape}" for t in tensors)
    match tensors:
        case [t] if (t.name, t.type, t.shape[1:]) == (name, element, shape) and not isinstance(t.shape[0], int):
            return
    raise ModelError(f"{where} should be {expected}, they are {actual}")


def _check_answers(precision: Precision, actual: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
    """Compares this machine's probabilities with the package's. Raises ModelError."""
    tolerance = PRECISIONS[precision].tolerance
    difference = float(np.abs(actual - expected).max())
    if not difference <= tolerance:  # so that NaN fails
        whose = "Keras'" if precision == "fp32" else "those that it was judged by"
        raise ModelError(
            f"golden check: probabilities should be within {tolerance:g} of {whose}, they differ by {difference:.3g}"
        )
    wrong = int((~same_class(expected, actual)).sum())
    if wrong and precision == "fp32":
        raise ModelError(
            f"golden check: the top class should be Keras' on all {len(actual)} images, it differs on {wrong}"
        )
