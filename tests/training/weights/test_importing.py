from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.training.weights.files import TINY, parameters, written
from training.contract.architecture import Architecture
from training.contract.manifest import Preprocessing
from training.weights.importing import Description, LabelsError, description_of, import_file, read_labels
from training.weights.layout import LayoutError
from training.weights.licences import LicenceRefused
from training.weights.presets import preset_named
from training.weights.store import WeightsError, WeightsExist, WeightsStore
from training.weights.tensors import TensorsError

PLAIN = Preprocessing(height=32, width=32)
ABOUT = Description("a test", "mit", PLAIN, ["cat", "dog", "été"])


@pytest.fixture
def store(tmp_path: Path) -> WeightsStore:
    return WeightsStore(tmp_path / "weights")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return written(tmp_path / "published.safetensors", parameters())


def left(store: WeightsStore) -> list[str]:
    return sorted(path.name for path in store.folder.glob("*") if path.name != ".lock")


def test_a_file_becomes_weights_with_all_that_is_known_of_it(store: WeightsStore, file: Path) -> None:
    record = import_file(store, file, "mine", ABOUT)
    assert store.record("mine") == record
    assert store.verified_file("mine").read_bytes() == file.read_bytes()
    assert (record.architecture, record.labels, record.licence) == (TINY, ABOUT.labels, "mit")
    assert (record.origin, record.revision, record.preprocessing) == ("a test", None, PLAIN)
    assert record.bytes == file.stat().st_size
    assert left(store) == ["mine.json", "mine.safetensors"]


def test_a_preset_brings_imagenets_labels_its_licence_and_its_images() -> None:
    about = description_of(preset_named("a1h_in1k"), 288, origin="the hub", revision="db598a6")
    assert (about.licence, about.origin, about.revision, len(about.labels)) == (
        "apache-2.0",
        "the hub",
        "db598a6",
        1000,
    )
    assert (about.preprocessing.height, about.preprocessing.resize) == (288, 288)


def test_a_name_that_is_taken_is_refused_before_the_file_is_copied(store: WeightsStore, file: Path) -> None:
    import_file(store, file, "mine", ABOUT)
    with pytest.raises(WeightsExist, match="there are weights 'mine'"):
        import_file(store, file, "mine", ABOUT)


def test_a_licence_that_forbids_commercial_use_has_to_be_allowed(store: WeightsStore, file: Path) -> None:
    about = Description("a test", "cc-by-nc-4.0", PLAIN, ABOUT.labels)
    with pytest.raises(LicenceRefused, match=r"'mine' should allow commercial use, 'cc-by-nc-4.0' does not"):
        import_file(store, file, "mine", about)
    assert import_file(store, file, "mine", about, allow_noncommercial=True).licence == "cc-by-nc-4.0"


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"bn1.running_var": np.full(4, -0.1, np.float32)}, r"variances of 0 or more.*'bn1\.running_var'"),
        ({"fc.bias": np.array([0, np.nan, 1], np.float32)}, r"fc\.bias should be finite, 1 of its 3 values"),
        ({"layer9.bias": np.zeros(1, np.float32)}, r"it has besides 'layer9\.bias'"),
        ({"fc.weight": np.zeros((3, 5), np.float32)}, r"fc\.weight \[3, 5\] in place of \[3, 32\]"),
    ],
)
def test_a_file_that_is_no_usable_network_leaves_nothing(
    store: WeightsStore, tmp_path: Path, change: dict[str, NDArray[np.float32]], complaint: str
) -> None:
    file = written(tmp_path / "bad.safetensors", parameters() | change)
    with pytest.raises(TensorsError, match=rf"^{tmp_path}/bad\.safetensors.*{complaint}"):
        import_file(store, file, "mine", ABOUT)
    assert left(store) == []


def test_labels_are_as_many_as_the_head_has_and_distinct(store: WeightsStore, file: Path) -> None:
    with pytest.raises(LabelsError, match=r"published\.safetensors names 3 classes, there are 2 labels"):
        import_file(store, file, "mine", Description("a test", "mit", PLAIN, ["a", "b"]))
    with pytest.raises(WeightsError, match=r"labels: .*'a' comes twice"):
        import_file(store, file, "mine", Description("a test", "mit", PLAIN, ["a", "b", "a"]))
    assert left(store) == []


def test_another_network_is_taken_for_what_it_is(store: WeightsStore, tmp_path: Path) -> None:
    plain = Architecture(depths=(1, 1), cardinality=1, base_width=4, stem_width=4)
    file = written(tmp_path / "resnet.safetensors", parameters(plain))
    assert import_file(store, file, "resnet", ABOUT).architecture == plain


def test_a_file_that_is_none_is_refused_without_a_copy(store: WeightsStore, tmp_path: Path) -> None:
    (tmp_path / "resnext50_32x4d-7cdf4587.pth").write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(TensorsError, match=r"7cdf4587\.pth should be a safetensors file, it is a zip archive"):
        import_file(store, tmp_path / "resnext50_32x4d-7cdf4587.pth", "mine", ABOUT)
    assert not store.folder.exists()
    headless = {name: values for name, values in parameters().items() if not name.startswith("fc")}
    file = written(tmp_path / "headless", headless)
    with pytest.raises(LayoutError, match=r"headless should .*; it lacks 'fc\.weight', 'fc\.bias'"):
        import_file(store, file, "mine", ABOUT)


def test_labels_of_a_text_file(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_bytes("\ufeffcat\r\ndog \r\nété\r\n\r\n".encode())  # as a Windows editor leaves it
    assert read_labels(path) == ["cat", "dog", "été"]
    path.write_text("cat\n\ndog\n")
    with pytest.raises(LabelsError, match="line 2 is empty"):
        read_labels(path)
    path.write_text("cat\nd\u202eog\n")
    with pytest.raises(LabelsError, match="line 2 holds U\\+202E RIGHT-TO-LEFT OVERRIDE"):
        read_labels(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(LabelsError, match="in UTF-8"):
        read_labels(path)
    path.write_bytes(b"x" * 2_000_000)
    with pytest.raises(LabelsError, match="at most 1048576 bytes"):
        read_labels(path)
