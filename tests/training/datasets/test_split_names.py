import pytest

from training.datasets.split_names import split_of, splits_among


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


@pytest.mark.parametrize(
    ("split", "names"),
    [
        ("train", "entrenamiento entraînement Trainingsdaten conjunto_de_treino обучение 训练 训练集 学習データ 훈련"),
        ("val", "validación Validierung validação валидация 验证集 検証 검증"),
        ("test", "prueba Testdaten datos_de_prueba тест 测试 测试集 テスト"),
    ],
)
def test_splits_are_known_in_other_languages(split: str, names: str) -> None:
    for name in names.split():
        assert split_of(name) == split, name


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        ("seg_train seg_test seg_pred", {"seg_train": "train", "seg_test": "test"}),
        ("X_train X_val", {"X_train": "train", "X_val": "val"}),
        ("catsTrain catsTest", {"catsTrain": "train", "catsTest": "test"}),
        ("trainA trainB testA", {"trainA": "train", "testA": "test"}),
        ("train seg_test", {"train": "train"}),
        ("bullet_train steam_train", {}),
        ("bullet_train flight_test", {}),
        ("dev_board bread_board", {}),
    ],
)
def test_splits_that_share_their_other_words_are_known_beside_each_other(names: str, splits: dict[str, str]) -> None:
    assert splits_among(names.split()) == splits
