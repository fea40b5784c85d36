import io
import math
import unicodedata
from importlib.metadata import distribution
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib import rcParams
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from training.exported.evaluate import Evaluation, evaluate
from training.exported.plots import (
    MISSING,
    RIGHT,
    WRONG,
    choose_examples,
    drawable,
    plot_confusion,
    plot_curves,
    plot_history,
    plot_predictions,
)

CJK = ["中文", "猫", "犬", "ねこ", "고양이"]
DIGITS = ["零 zero", "いち", "二", "셋 three", "$x_4$", "$\\frac$", "六", "a long name for seven", "はち" * 9, "九"]


def pixels(path: Path | io.BytesIO) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def ink(text: str, **style: Any) -> NDArray[np.uint8]:  # Any: text properties are of many types
    """The pixels of a text, cropped to what is drawn."""
    figure = Figure(figsize=(4, 1), dpi=150)
    figure.text(0.1, 0.5, text, va="baseline", fontsize=20, **style)
    file = io.BytesIO()
    figure.savefig(file, format="png")
    dark = pixels(file)[..., 0]
    rows, columns = np.flatnonzero((dark < 255).any(axis=1)), np.flatnonzero((dark < 255).any(axis=0))
    return dark[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def assert_margins_are_white(picture: NDArray[np.uint8]) -> None:
    """Nothing is cut: what touches the edge may go on beyond it."""
    for edge in (picture[0], picture[-1], picture[:, 0], picture[:, -1]):
        assert (edge == 255).all()


def real_digits() -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.float32]]:
    """Images [597, 8, 8, 3], true classes and probabilities [597, 10] of a weak classifier."""
    digits = load_digits()
    model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.9).fit(digits.data[:1200], digits.target[:1200])
    gray = (digits.images[1200:] * (255 / 16)).astype(np.uint8)
    probabilities = model.predict_proba(digits.data[1200:]).astype(np.float32)
    return np.repeat(gray[..., None], 3, axis=3), digits.target[1200:], probabilities


def perfect(classes: int) -> Evaluation:
    labels = [str(i) for i in range(classes)]
    return evaluate(labels, np.arange(classes), np.eye(classes, dtype=np.float32), labels)


def history(epochs: int, **other: list[float]) -> dict[str, list[float]]:
    rise = [1 - 0.9 * math.exp(-i / 5) for i in range(epochs)]
    return {
        "epoch": [float(i + 1) for i in range(epochs)],
        "accuracy": rise,
        "val_accuracy": [0.9 * a for a in rise],
        "loss": [2 * (1 - a) for a in rise],
        "val_loss": [2.2 * (1.1 - a) for a in rise],
        **other,
    }


def test_each_cjk_label_is_drawn_with_its_own_glyphs() -> None:
    noto = Path(str(distribution("mplfonts").locate_file("mplfonts/fonts/NotoSansCJKsc-Regular.otf")))
    labels, style = drawable(CJK)
    drawn = [ink(label, **style) for label in labels]
    for one, other in combinations(drawn, 2):
        assert not np.array_equal(one, other)
    with pytest.warns(UserWarning, match="Glyph"):
        tofu = ink("猫", fontfamily="DejaVu Sans")
    assert not any(np.array_equal(one, tofu) for one in drawn)
    if "Noto Sans CJK SC" in style["fontfamily"]:  # an installed font of another family goes first
        for label, one in zip(labels, drawn, strict=True):
            assert np.array_equal(one, ink(label, font=noto))


def test_latin_labels_load_no_further_font() -> None:
    labels, style = drawable(["cat", "Übergröße", "кошка"])
    assert labels == ["cat", "Übergröße", "кошка"]
    assert style["fontfamily"] == rcParams["font.family"]


def test_decomposed_names_of_a_mac_are_drawn_composed() -> None:
    labels, _ = drawable([unicodedata.normalize("NFD", "고양이 が é")])
    assert labels == ["고양이 が é"]


def test_character_without_a_glyph_is_replaced_in_place_of_a_warning() -> None:
    labels, style = drawable(["a\U0010fffdb", "two\nlines"])
    assert labels == [f"a{MISSING}b", f"two{MISSING}lines"]
    assert ink(labels[0], **style).size


def test_dollar_is_a_dollar() -> None:
    (label,), style = drawable(["$x_4$"])
    assert not np.array_equal(ink(label, **style), ink("$x_4$"))
    assert np.array_equal(ink(label, **style), ink(r"\$x_4\$"))


def test_history_marks_best_epoch_and_drops(tmp_path: Path) -> None:
    def draw(name: str, **other: list[float]) -> NDArray[np.uint8]:
        plot_history(history(12, **other), tmp_path / name)
        return pixels(tmp_path / name)

    plain = draw("plain.png")
    assert_margins_are_white(plain)
    dropped = draw("drop.png", learning_rate=[1e-3] * 6 + [5e-4] * 6)
    assert not np.array_equal(plain, dropped)
    assert np.array_equal(plain, draw("cosine.png", learning_rate=[1 - i / 20 for i in range(12)]))
    best_in_the_middle = draw("middle.png", val_accuracy=[0.5] * 5 + [0.9] + [0.5] * 6)
    half = plain.shape[1] // 2
    assert not np.array_equal(plain[:, half:], best_in_the_middle[:, half:])  # the star moves on the loss as well


def test_history_marks_the_surer_of_equally_accurate_epochs(tmp_path: Path) -> None:
    def draw(best: int) -> NDArray[np.uint8]:
        losses = [0.5] * 12
        losses[best] = 0.4
        plot_history(history(12, val_accuracy=[0.9] * 12, val_loss=losses), tmp_path / "tie.png")
        picture = pixels(tmp_path / "tie.png")
        return picture[:, : picture.shape[1] // 2]  # the accuracies, alike but for the star

    assert not np.array_equal(draw(3), draw(7))


@pytest.mark.parametrize(
    "epochs",
    [
        history(1),
        history(1, learning_rate=[1e-3]),
        history(3, val_loss=[math.nan] * 3, val_accuracy=[math.nan] * 3, loss=[2.0, math.nan, math.nan]),
        {"epoch": [0.0, 1.0], "accuracy": [0.1, 0.2], "loss": [2.0, 1.0]},
    ],
    ids=["one epoch", "one epoch with its rate", "diverged", "no validation"],
)
def test_history_of_any_run_is_drawn(epochs: dict[str, list[float]], tmp_path: Path) -> None:
    plot_history(epochs, tmp_path / "history.png")
    assert_margins_are_white(pixels(tmp_path / "history.png"))


def test_the_legend_hides_no_epoch(tmp_path: Path) -> None:
    """The first epochs of few images have a high loss, just where a legend would lie."""
    falling = {"loss": [9 / n for n in range(1, 31)], "val_loss": [12 / n for n in range(1, 31)]}
    figure = Figure(figsize=(5.5, 4.2), layout="constrained", dpi=150)
    axes = figure.subplots()
    plot_curves(axes, history(30, **falling), "loss")
    figure.savefig(tmp_path / "loss.png")
    legend = axes.get_legend()
    assert legend
    assert legend.get_window_extent().y1 <= axes.get_window_extent().y0


def test_history_without_an_epoch_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one epoch, got 0"):
        plot_history(history(0), tmp_path / "history.png")


def test_confusion_of_real_digits_draws_all_names(tmp_path: Path) -> None:
    _, true, probabilities = real_digits()
    result = evaluate(DIGITS, true, probabilities, [str(i) for i in range(len(true))])
    before = dict(rcParams)
    plot_confusion(result, DIGITS, tmp_path / "one.png")
    plot_confusion(result, [*DIGITS[:9], "犬"], tmp_path / "other.png")
    one, other = pixels(tmp_path / "one.png"), pixels(tmp_path / "other.png")
    assert_margins_are_white(one)
    assert not np.array_equal(one, other)
    assert dict(rcParams) == before


def test_confusion_grows_with_the_classes_to_a_limit(tmp_path: Path) -> None:
    heights = []
    for classes in (2, 20, 200):
        plot_confusion(perfect(classes), [f"类 {i}" for i in range(classes)], tmp_path / "confusion.png")
        picture = pixels(tmp_path / "confusion.png")
        assert_margins_are_white(picture)
        heights.append(len(picture))
    assert heights == sorted(set(heights))
    assert heights[-1] <= 14 * 150


def test_confusion_draws_a_class_without_images(tmp_path: Path) -> None:
    result = evaluate(["a", "b", "c"], np.array([0, 1]), np.eye(3, dtype=np.float32)[:2], ["x", "y"])
    plot_confusion(result, ["a", "b", "c"], tmp_path / "confusion.png")
    assert_margins_are_white(pixels(tmp_path / "confusion.png"))


def test_confusion_with_a_label_too_few_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has 3 classes, expected as many labels, got 2"):
        plot_confusion(perfect(3), ["a", "b"], tmp_path / "confusion.png")


def shade(picture: NDArray[np.uint8], color: str) -> int:
    """Counts the pixels of exactly this color."""
    wanted = np.round(np.array(to_rgb(color)) * 255).astype(np.uint8)
    return int((picture == wanted).all(axis=-1).sum())


def test_predictions_of_real_digits_show_right_and_wrong(tmp_path: Path) -> None:
    images, true, probabilities = real_digits()
    plot_predictions(images, true, probabilities, DIGITS, tmp_path / "one.png")
    picture = pixels(tmp_path / "one.png")
    assert_margins_are_white(picture)
    assert shade(picture, RIGHT) > 1000
    assert shade(picture, WRONG) > 1000
    chosen = choose_examples(true, probabilities)
    plot_predictions(images[chosen], true[chosen], probabilities[chosen], DIGITS, tmp_path / "chosen.png")
    assert np.array_equal(picture, pixels(tmp_path / "chosen.png"))


@pytest.mark.parametrize("count", [1, 7])
def test_few_predictions_are_drawn(count: int, tmp_path: Path) -> None:
    images, true, _ = real_digits()
    sure = np.eye(10, dtype=np.float32)[true]
    plot_predictions(images[:count], true[:count], sure[:count], DIGITS, tmp_path / "predictions.png")
    picture = pixels(tmp_path / "predictions.png")
    assert_margins_are_white(picture)
    assert shade(picture, RIGHT)
    assert not shade(picture, WRONG)


def test_predictions_need_images_and_equal_lengths(tmp_path: Path) -> None:
    images, true, probabilities = real_digits()
    with pytest.raises(ValueError, match="at least one image, got 0"):
        plot_predictions(images[:0], true[:0], probabilities[:0], DIGITS, tmp_path / "predictions.png")
    with pytest.raises(ValueError, match="equally many, they are 2, 3 and 3"):
        plot_predictions(images[:2], true[:3], probabilities[:3], DIGITS, tmp_path / "predictions.png")


@pytest.mark.parametrize(("wrong", "right"), [(40, 40), (3, 40), (40, 3), (0, 40), (40, 0), (1, 0), (12, 13)])
def test_examples_are_half_mistakes_where_there_are_enough(wrong: int, right: int) -> None:
    true = np.array([1] * wrong + [0] * right)
    confidence = np.linspace(0.51, 0.99, wrong + right, dtype=np.float32)
    probabilities = np.stack([confidence, 1 - confidence], axis=1)
    chosen = choose_examples(true, probabilities, 25)
    total = min(25, wrong + right)
    mistakes = min(wrong, max(12, 25 - right))
    assert len(set(chosen.tolist())) == len(chosen) == total
    assert chosen[:mistakes].tolist() == list(range(wrong))[::-1][:mistakes]  # the most confident first
    assert (chosen[mistakes:] >= wrong).all()
    if right > 25:  # spread over all, not the first ones only
        assert chosen[-1] >= wrong + right * 0.9
    assert choose_examples(true[chosen], probabilities[chosen], 25).tolist() == list(range(total))
