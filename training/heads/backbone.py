"""The files of backbones, which are made once for given weights and image size and used by every head on them.

    backbones/KEY/model.onnx    the exported graph, with a head that a user replaces
    backbones/KEY/model.int8.onnx  int8.json    the INT8 variant, and how it was calibrated

Each file appears in one rename. The folder may be deleted at any time; the backbones that were used longest ago are
removed when there are more than `MOST`.
"""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path

from training.config import Recipe
from training.contract.manifest import Preprocessing
from training.environment import Places
from training.runs.source import Source
from training.system.files import link_or_copy
from training.system.libraries import versions_of

MAKERS = ("tensorflow", "keras", "tf2onnx", "onnx", "onnxruntime-gpu", "onnxruntime")  # another version makes new files
MOST = 4  # backbones kept: each of ResNeXt-50 has 133 MB
FORMAT = 1  # changes when the exported graph does, or the form in which features are kept


class Backbone:
    """The files of one backbone. `identity` stands for its parameters."""

    def __init__(self, cache: Path, identity: str, preprocessing: Preprocessing) -> None:
        parts = {
            "format": FORMAT,
            "backbone": identity,
            "pixels": preprocessing.model_dump(),
            "libraries": versions_of(MAKERS),
        }
        self.key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]
        self._all = cache / "backbones"
        self.folder = self._all / self.key

    def take(self, name: str, target: Path) -> bool:
        """Makes `target` a name or a copy of the file `name`. Returns False where it was not made yet."""
        target.unlink(missing_ok=True)
        try:
            os.utime(self.folder)  # used now
            link_or_copy(str(self.folder / name), str(target))
        except FileNotFoundError:
            return False
        return True

    def keep(self, name: str, source: Path) -> None:
        """Keeps a file, in place of an older one of this name."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            new = Path(folder) / name
            link_or_copy(str(source), str(new))
            new.replace(self.folder / name)
        self._remove_oldest()

    def _remove_oldest(self) -> None:
        with contextlib.suppress(FileNotFoundError):  # another process removes one at the same time
            folders = sorted(self._all.iterdir(), key=lambda folder: folder.stat().st_mtime, reverse=True)
            for folder in folders[MOST:]:
                shutil.rmtree(folder, ignore_errors=True)


def backbone_of(config: Recipe, source: Source) -> Backbone:
    """Returns the place of the files that all heads on these weights share."""
    return Backbone(Places().derived, source.backbone, config.preprocessing)
