"""The names that people give to the folders of splits."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable

NAMES = {
    "train": (
        *("train", "training", "trn", "entrenamiento", "entrainement", "entraînement", "apprentissage", "treino"),
        *("treinamento", "addestramento", "обучение", "тренировка", "训练", "訓練", "学習", "学习", "훈련", "학습"),
    ),
    "val": (
        *("val", "valid", "validation", "validate", "validating", "dev", "development", "eval", "evaluation"),
        *("validación", "validacion", "validação", "validacao", "validierung", "validazione", "валидация", "проверка"),
        *("验证", "驗證", "検証", "검증"),
    ),
    "test": (
        *("test", "tests", "testing", "tst", "holdout", "prueba", "pruebas", "teste", "testes", "тест"),
        *("测试", "測試", "テスト", "테스트"),
    ),
}
FILLERS = (
    *("set", "sets", "split", "data", "dataset", "images", "image", "imgs", "img", "pictures", "photos", "samples"),
    *("daten", "sdaten", "datensatz", "sdatensatz", "bilder", "sbilder"),
    *("de", "datos", "dados", "données", "conjunto", "集", "数据", "數據", "データ", "用"),
)

_filler = f"(?:{'|'.join(FILLERS)})*"
_split = "|".join(f"(?P<{split}>{'|'.join(names)})" for split, names in NAMES.items())
_spelled = re.compile(f"{_filler}(?:{_split}){_filler}")
_boundary = re.compile(r"[\W\d_]+|(?<=[a-z])(?=[A-Z])")


def split_of(name: str) -> str | None:
    """Returns the split that a folder's name stands for: train, val, test, or None.

    Only letters count, in any case: `TRAIN`, `training_set`, `Train Images`, `train2017` and `01-train` are train.
    """
    letters = "".join(char for char in unicodedata.normalize("NFKC", name).casefold() if char.isalpha())
    found = _spelled.fullmatch(letters)
    return found.lastgroup if found else None


def splits_among(names: Iterable[str]) -> dict[str, str]:
    """Returns the names that stand for splits, each with its split.

    Where no name does so alone, names that differ only in the split's word do: `seg_train` beside `seg_test`.
    """
    names = list(names)
    if alone := {name: split for name in names if (split := split_of(name))}:
        return alone
    by_rest: dict[tuple[str, ...], dict[str, str]] = defaultdict(dict)
    for name in names:
        words = [word for word in _boundary.split(unicodedata.normalize("NFKC", name)) if word]
        splits = [split for word in words if (split := split_of(word))]
        if len(splits) == 1:
            by_rest[tuple(word.casefold() for word in words if not split_of(word))][name] = splits[0]
    return {name: split for like in by_rest.values() if len(set(like.values())) > 1 for name, split in like.items()}
