import pytest

from training.datasets.split_names import split_of


@pytest.mark.parametrize(
    ("split", "names"),
    [
        ("train", "train Train TRAINING training_set train-set trainset train_images data_train train2017"),
        ("val", "val Valid VALIDATION validation_set val-images dev Eval val_data validation01 dev-set"),
        ("test", "test Testing TEST_SET tests test-images images_test test2017 test_1 01-test"),
    ],
)
def test_any_spelling_of_a_split_is_known(split: str, names: str) -> None:
    for name in names.split():
        assert split_of(name) == split_of(name.replace("_", " ")) == split, name


@pytest.mark.parametrize(
    "name",
    ["trains", "steam train", "train station", "invalid", "device", "contest", "data", "images", "fold1", "猫", ""],
)
def test_other_names_are_no_splits(name: str) -> None:
    assert split_of(name) is None
