"""The images of a run, decoded for a phase."""

from tests.training.conftest import Trained
from training.contract.manifest import Preprocessing
from training.phases.images import images_of


def test_a_phase_gets_the_splits_it_names_and_nothing_stays_on_disk(trained: Trained) -> None:
    before = sorted(trained.run.folder.iterdir())
    splits = images_of(trained.run, "val", "test")
    assert {name: split.images.shape for name, split in splits.items()} == {
        "val": (269, 32, 32, 3),
        "test": (269, 32, 32, 3),
    }
    assert {sample.split for sample in splits["test"].samples} == {"test"}
    assert sorted(trained.run.folder.iterdir()) == before


def test_another_models_images_are_those_of_its_own_preprocessing(trained: Trained) -> None:
    theirs = images_of(trained.run, "test", preprocessing=Preprocessing(height=16, width=24))
    assert theirs["test"].images.shape == (269, 16, 24, 3)
