"""Features of images: computed once, and kept for later trainings on the same backbone.

A row is found by the backbone's key, which stands for weights and preprocessing, and by the SHA-256 of the image's
file. So a dataset that has got twenty more photos costs twenty runs of the network.
"""

import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from training.contract.manifest import INPUT_NAME, Preprocessing
from training.datasets.layout import Sample
from training.datasets.loading import load
from training.errors import TrainingError
from training.exported.classifier import BATCH, Uint8Images, batches
from training.heads.folding import FEATURES_NAME, cut_off_head

MOST_BYTES = 2 * 1024**3  # of features on disk: 262,000 images
CHUNK = 256  # images that are decoded at once
VARIABLES = 500  # of one SQL statement; SQLite takes 32,766
FORM = 1  # of the table, and of the pixels that the features are of: another decode asks for another number
WAIT_S = 60.0  # for another process that writes

Features = NDArray[np.float32]  # [N, features]
Extractor = Callable[[Uint8Images], NDArray[np.float32]]  # uint8 [N, height, width, 3] -> float32 [N, features]


def extractor(model: onnx.ModelProto) -> Extractor:
    """Returns an exported graph without its head as a function, on ONNX Runtime's CPU provider. Changes `model`."""
    cut_off_head(model)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])

    def extract(images: Uint8Images) -> NDArray[np.float32]:
        return np.concatenate([session.run([FEATURES_NAME], {INPUT_NAME: batch})[0] for batch in batches(images)])

    return extract


class FeatureStoreError(TrainingError):
    """A store of features that cannot be read or written."""


class FeatureStore:
    """Features on disk, in an SQLite database. It may be deleted at any time.

    When it has grown too large, the images that were asked for longest ago go. Every method raises FeatureStoreError.
    """

    def __init__(self, cache: Path) -> None:
        cache.mkdir(parents=True, exist_ok=True)
        self.path = cache / "features.sqlite"

    def find(self, key: str, images: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """Returns the known ones of these images, by SHA-256: float32 [features] each."""
        found: dict[str, NDArray[np.float32]] = {}
        with self._open() as database:
            for start in range(0, len(images), VARIABLES):
                some = images[start : start + VARIABLES]
                marks = ",".join("?" * len(some))  # all that is put into the statements below
                rows = database.execute(
                    f"SELECT image, features FROM features WHERE backbone = ? AND image IN ({marks})",  # noqa: S608
                    (key, *some),
                )
                found |= {image: np.frombuffer(data, np.float32) for image, data in rows}
                database.execute(
                    f"UPDATE features SET used = ? WHERE backbone = ? AND image IN ({marks})",  # noqa: S608
                    (time.time(), key, *some),
                )
        return found

    def add(self, key: str, rows: dict[str, NDArray[np.float32]]) -> None:
        """Keeps features, float32 [features] by the image's SHA-256."""
        with self._open() as database:
            now = time.time()
            database.executemany(
                "INSERT OR REPLACE INTO features VALUES (?, ?, ?, ?)",
                [(key, image, now, row.astype(np.float32).tobytes()) for image, row in rows.items()],
            )
            size, count = database.execute("SELECT SUM(LENGTH(features)), COUNT(*) FROM features").fetchone()
            if size > MOST_BYTES:
                database.execute(
                    "DELETE FROM features WHERE rowid IN (SELECT rowid FROM features ORDER BY used LIMIT ?)",
                    (count // 4,),
                )

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            with contextlib.closing(sqlite3.connect(self.path, timeout=WAIT_S)) as database, database:
                if database.execute("PRAGMA user_version").fetchone() != (FORM,):
                    database.execute("DROP TABLE IF EXISTS features")
                    database.execute(f"PRAGMA user_version = {FORM}")
                database.execute(
                    "CREATE TABLE IF NOT EXISTS features (backbone TEXT, image TEXT, used REAL, features BLOB, "
                    "PRIMARY KEY (backbone, image))"
                )
                yield database
        except sqlite3.Error as error:
            raise FeatureStoreError(
                f"{self.path} should hold features of images: {error}. It only saves time: remove it, and they are "
                "computed again"
            ) from error


def features_of(
    samples: list[Sample],
    preprocessing: Preprocessing,
    store: FeatureStore,
    key: str,
    folder: Path,
    extract: Callable[[], Extractor],
    progress: Callable[[int, int], object],
    tell: Callable[[str], object],
) -> tuple[Features, int]:
    """Returns the features of the samples' images, float32 [N, features], and how many images were computed.

    `folder` may hold the images' pixels. `extract` is asked for the network only where an image is not known yet.
    `progress` gets the numbers of images that are computed and of all that have to be. A store that fails costs time
    only: `tell` gets a line. Raises DatasetError when a file has changed.
    """
    known: dict[str, NDArray[np.float32]] = {}
    try:
        known = store.find(key, [sample.sha256 for sample in samples])
    except FeatureStoreError as error:
        tell(str(error))
    missing = list({sample.sha256: sample for sample in samples if sample.sha256 not in known}.values())
    network = extract() if missing else None
    for start in range(0, len(missing), CHUNK):
        assert network
        chunk = [replace(sample, split="all") for sample in missing[start : start + CHUNK]]
        images = load(chunk, preprocessing, folder, ("all",))["all"].images
        rows: dict[str, NDArray[np.float32]] = {}
        for i in range(0, len(chunk), BATCH):
            found = network(images[i : i + BATCH])
            rows |= {sample.sha256: row for sample, row in zip(chunk[i : i + BATCH], found, strict=True)}
            progress(start + len(rows), len(missing))
        known |= rows
        try:
            store.add(key, rows)
        except FeatureStoreError as error:
            tell(f"features are not kept: {error}")
    return np.stack([known[sample.sha256] for sample in samples]), len(missing)
