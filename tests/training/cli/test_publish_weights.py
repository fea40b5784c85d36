"""`resnext weights publish`: real weights become a version, which the service's own loading takes."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.execution.loading import load_model
from app.execution.session import Execution
from tests.training.network import published
from training.cli.command import main
from training.config import InitialWeights, Recipe
from training.contract.manifest import GOLDEN_FILE, INT8_FILE, MODEL_FILE, Precision
from training.contract.repository import ModelRepository
from training.heads.backbone import backbone_of
from training.images.decode import decode
from training.runs.source import find_source
from training.weights.known_photos import KNOWN_PHOTOS
from training.weights.store import WeightsStore

FLAGS = ("--image-size=64", "--resize-mode=crop", "--resize=80", "--licence=mit", "--origin=a test")


@dataclass(frozen=True)
class Published:
    """A repository with a version of the small weights that was calibrated on 24 images, and what was printed."""

    repository: ModelRepository
    weights: WeightsStore
    printed: str


def publish(place: Published, *arguments: str) -> int:
    folders = (f"--weights={place.weights.folder}", f"--models={place.repository.root}")
    return main(["weights", "publish", "small", f"--name={place.repository.name}", *folders, *arguments])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Published:
    folder = tmp_path_factory.mktemp("publish")
    labels, images = folder / "labels.txt", folder / "images/any"
    labels.write_text("".join(f"class {i}\n" for i in range(10)))
    images.mkdir(parents=True)
    photo = Image.open(published.FOLDER / "photo.png")
    for i in range(24):
        photo.rotate(15 * i).save(images / f"{i:02}.png")
    (images / "notes.txt").write_text("no image, and not called one")
    (images / "broken.PNG").write_text("no image")
    weights = WeightsStore(folder / "weights")
    arguments = (str(published.FILE), f"--labels={labels}", f"--weights={weights.folder}")
    assert main(["weights", "import", *arguments, *FLAGS]) == 0
    place = Published(ModelRepository(folder / "models", "tenfold"), weights, "")
    with pytest.MonkeyPatch.context() as patch:
        lines: list[str] = []
        patch.setattr("training.cli.publish_weights._say", lines.append)
        assert publish(place, f"--calibration={images.parent}") == 0
    return Published(place.repository, weights, "\n".join(lines))


def test_the_version_says_what_it_is_and_what_is_not_known_of_it(place: Published) -> None:
    manifest, record = place.repository.manifest(1), place.weights.record("small")
    assert place.repository.active() == 1
    place.repository.verify_files(1)
    assert (manifest.labels, manifest.preprocessing) == (record.labels, record.preprocessing)
    assert manifest.architecture == record.architecture
    assert (manifest.init, manifest.backbone) == ("weights:small", record.sha256)
    assert manifest.weights
    assert (manifest.weights.licence, manifest.weights.origin) == ("mit", "a test")
    assert (manifest.metrics, manifest.dataset, manifest.method, manifest.gate) == ({}, None, None, None)
    assert {name: variant.accuracy for name, variant in manifest.variants.items()} == dict.fromkeys(
        ("fp32", "int8", "fp16")
    )
    assert manifest.parity.images == manifest.parity.top1_equal == 4 + 12
    assert not [path for path in place.repository.folder.iterdir() if path.name.startswith(".staging")]


def test_what_is_done_is_printed(place: Published) -> None:
    lines = place.printed.splitlines()
    assert lines[0].endswith("as no images: 'broken.PNG'")
    assert "INT8, calibrated on 12 images" in lines
    assert lines[-1] == (
        "version 1 of tenfold, 10 classes, fp32, int8, fp16, is active: resnext serve --model tenfold serves it"
    )


@pytest.mark.parametrize("precision", ["fp32", "int8", "fp16"])
def test_the_service_takes_each_variant(place: Published, precision: Precision) -> None:
    model = load_model(place.repository, 1, Execution(), precision, max_batch=2, limit=2)
    assert (model.precision, len(model.labels)) == (precision, 10)


def test_golden_images_begin_with_the_known_photos(place: Published) -> None:
    with np.load(place.repository.path(1) / GOLDEN_FILE) as golden:
        assert len(golden["images"]) == 8
        for image, photo in zip(golden["images"][:4], KNOWN_PHOTOS, strict=True):
            np.testing.assert_array_equal(image, decode(photo.read(), place.weights.record("small").preprocessing))


def test_a_head_on_the_model_finds_the_files_of_its_backbone(place: Published, tmp_path: Path) -> None:
    keys = set()
    for init in ("weights:small", "tenfold"):
        source = find_source(InitialWeights.parse(init), place.repository, place.weights)
        assert source
        backbone = backbone_of(Recipe.model_validate(source.settings()), source)
        assert backbone.take(MODEL_FILE, tmp_path / MODEL_FILE)
        assert backbone.take(INT8_FILE, tmp_path / INT8_FILE)
        keys.add(backbone.key)
    assert len(keys) == 1


def test_a_second_one_is_kept_aside_until_it_is_asked_for(place: Published, capsys: pytest.CaptureFixture[str]) -> None:
    assert publish(place) == 0
    assert "version 2 of tenfold, 10 classes, fp32, fp16, is kept aside, version 1 is active" in capsys.readouterr().out
    assert publish(place, "--activate") == 0
    assert place.repository.active() == 3
    folders = (f"--models={place.repository.root}", "--name=tenfold")
    capsys.readouterr()
    assert main(["models", "list", *folders]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[0] for row in rows] == ["1", "2", "3"]
    assert [row[-4:] for row in rows] == [["-", "10", "-", "weights:small"]] * 3
    assert main(["models", "show", "2", *folders]) == 0
    assert json.loads(capsys.readouterr().out)["parent"] == 1


def test_folders_that_will_not_do_are_refused(
    place: Published, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    versions = place.repository.versions()
    (tmp_path / "one.png").write_text("")
    assert publish(place, f"--calibration={tmp_path}") == 1
    complaint = capsys.readouterr().err
    assert "should hold at least 20 images to calibrate INT8 with: of 1 files" in complaint
    assert "0 are images" in complaint
    assert publish(place, f"--calibration={tmp_path}/none") == 1
    assert "none is none" in capsys.readouterr().err
    assert publish(place, f"--models={tmp_path}/one.png") == 1
    assert "should be a folder that versions can be published into" in capsys.readouterr().err
    assert place.repository.versions() == versions
