"""The pictures of a training run: its history, the confusion matrix, a sheet of predictions. All PNG, 150 dpi.

Figures are built without pyplot, and text is styled artist by artist. No global state changes, so a thread may draw.
"""

import math
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import font_manager, get_data_path, rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from rich.cells import cell_len, set_cell_size

from training.exported.evaluate import Evaluation

DPI = 150
EXAMPLES = 25  # images on the sheet of predictions, five in a row
LABEL_CELLS = 16  # longest label drawn, in columns of a terminal: a CJK character takes two
COUNTED_CLASSES = 30  # most classes whose confusion matrix has room for counts
TICKS = 40  # most labels on an axis of the confusion matrix

# Okabe and Ito's bluish green and vermilion, darkened for text on white: they differ in lightness too
RIGHT, WRONG = "#007a5a", "#b83200"
TRAINING, VALIDATION = "#0072b2", "#d55e00"
RIGHT_MARK, WRONG_MARK = "✓", "✗"
MISSING = "\ufffd"  # drawn for a character that no font has

CJK_FONTS = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Source Han Sans SC",
    "Source Han Sans CN",
    "PingFang SC",
    "PingFang HK",
    "Hiragino Sans GB",
    "Hiragino Sans",
    "Apple SD Gothic Neo",
    "Microsoft YaHei",
    "Yu Gothic",
    "Malgun Gothic",
    "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei",
    "Droid Sans Fallback",
)
BUNDLED_FONT = ("mplfonts", "mplfonts/fonts/NotoSansCJKsc-Regular.otf", "Noto Sans CJK SC")


def plot_history(history: Mapping[str, Sequence[float]], path: Path) -> None:
    """Draws accuracy and loss by epoch, with the best epoch and each drop of the learning rate marked.

    `history` holds lists of equal length: `epoch`, `accuracy`, `loss`, and optionally `val_accuracy`, `val_loss`,
    `learning_rate`. The best epoch has the highest val accuracy and, among equals, the lowest val loss, as in the
    checkpoint. NaN is a gap. A loss that spans more than two decades gets a logarithmic axis.
    Raises ValueError when there is no epoch, KeyError when `epoch` is missing.
    """
    if not len(history["epoch"]):
        raise ValueError("there is no history to draw: expected at least one epoch, got 0")
    figure = Figure(figsize=(11, 4.2), layout="constrained", dpi=DPI)
    for axes, name in zip(figure.subplots(1, 2), ("accuracy", "loss"), strict=True):
        plot_curves(axes, history, name)
        _mark_drops(axes, history, at_top=name == "loss")
    figure.savefig(path, format="png")


def plot_confusion(evaluation: Evaluation, labels: Sequence[str], path: Path) -> None:
    """Draws the confusion matrix: color is the share of the true class; up to 30 classes, text counts the images.

    Raises ValueError when there are not as many labels as classes.
    """
    counts = np.array(evaluation.confusion)
    if len(labels) != len(counts):
        raise ValueError(f"the matrix has {len(counts)} classes, expected as many labels, got {len(labels)}")
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)  # the row of a class without images is white
    counted = len(labels) <= COUNTED_CLASSES
    cell = max(0.34, 0.09 * len(str(counts.max())) + 0.06) if counted else 0.11  # inches
    side = min(max(3.4, cell * len(labels)), 12)

    figure = Figure(figsize=(side + 2.6, side + 1.9), layout="compressed", dpi=DPI)
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    figure.colorbar(image, ax=axes, label="share of the true class", aspect=30)
    axes.set(xlabel="predicted", ylabel="true", title=f"{evaluation.images} images, accuracy {evaluation.accuracy:.2%}")
    shown = range(0, len(labels), math.ceil(len(labels) / TICKS))
    text, style = drawable([labels[i] for i in shown])
    names = [_shorten(name) for name in text]
    axes.set_xticks(shown, names, rotation=90, fontsize=8, **style)
    axes.set_yticks(shown, names, fontsize=8, **style)
    if counted:
        size = np.clip(72 * side / len(labels) * 0.28, 7, 12)  # points
        for (row, column), count in np.ndenumerate(counts):
            if count:
                color = "white" if shares[row, column] > 0.65 else "black"
                axes.text(column, row, str(count), ha="center", va="center", fontsize=size, color=color)
    figure.savefig(path, format="png")


def plot_predictions(
    images: NDArray[np.uint8],
    true: NDArray[np.integer],
    probabilities: NDArray[np.floating],
    labels: Sequence[str],
    path: Path,
    count: int = EXAMPLES,
) -> None:
    """Draws up to `count` images with truth and prediction, the mistakes first.

    `images` is uint8 [N, height, width, 3] RGB, `true` int [N], `probabilities` float [N, classes].
    `choose_examples` chooses the images; where N is large, decode only those and pass their rows.
    Raises ValueError when there is no image or the three are not equally long.
    """
    if not len(images) == len(true) == len(probabilities):
        raise ValueError(
            "images, true classes and probabilities should be equally many, "
            f"they are {len(images)}, {len(true)} and {len(probabilities)}"
        )
    chosen = choose_examples(true, probabilities, count)
    predicted = probabilities[chosen].argmax(axis=1)
    text, style = drawable([*labels, RIGHT_MARK, WRONG_MARK])
    names = [_shorten(name) for name in text[: len(labels)]]
    right_mark, wrong_mark = text[len(labels) :]

    columns = min(5, len(chosen))
    rows = math.ceil(len(chosen) / columns)
    figure = Figure(figsize=(2.5 * columns, 2.8 * rows + 0.3), layout="constrained", dpi=DPI)
    grid = figure.subplots(rows, columns, squeeze=False).flat
    for axes, i, guess in zip(grid, chosen, predicted, strict=False):
        right = guess == true[i]
        mark, color = (right_mark, RIGHT) if right else (wrong_mark, WRONG)
        axes.imshow(images[i], interpolation="nearest")
        axes.set_title(
            f"{mark} true: {names[true[i]]}\npredicted: {names[guess]} ({probabilities[i, guess]:.0%})",
            fontsize=8,
            color=color,
            **style,
        )
        axes.spines[:].set(color=color, linewidth=1 if right else 3)
    for axes in figure.axes:
        axes.set(xticks=[], yticks=[])
    for axes in figure.axes[len(chosen) :]:
        axes.set_axis_off()
    wrong = int((predicted != true[chosen]).sum())
    figure.suptitle(f"{wrong} wrong and {len(chosen) - wrong} right shown", fontsize=9)
    figure.savefig(path, format="png")


def choose_examples(
    true: NDArray[np.integer], probabilities: NDArray[np.floating], count: int = EXAMPLES
) -> NDArray[np.intp]:
    """Returns the indices, int [at most count], of the images that `plot_predictions` draws.

    Half of them are mistakes, the most confident first. The rest are right answers, evenly spaced in the given order (a
    split is sorted by class, so all classes have a chance). If there are too few of one kind, the other fills the
    sheet. Choosing again among the chosen gives all of them in the same order. Raises ValueError without images.
    """
    if not len(true):
        raise ValueError("there is no prediction to draw: expected at least one image, got 0")
    correct = probabilities.argmax(axis=1) == true
    right, wrong = np.flatnonzero(correct), np.flatnonzero(~correct)
    wrong = wrong[np.argsort(-probabilities[wrong].max(axis=1), kind="stable")]
    wrong = wrong[: max(count // 2, count - len(right))]
    room = min(count - len(wrong), len(right))
    return np.concatenate([wrong, right[np.arange(room) * len(right) // max(room, 1)]])


def drawable(labels: Iterable[str]) -> tuple[list[str], dict[str, Any]]:  # Any: text properties are of many types
    """Returns labels that can be drawn, and text properties to draw them with: fonts, and "$" without a meaning.

    A character that no font has becomes U+FFFD, so that no name makes a picture fail.
    """
    # file names from a Mac are decomposed, which fonts draw badly or not at all
    composed = [unicodedata.normalize("NFC", label) for label in labels]
    families = tuple(rcParams["font.family"])
    missing = set("".join(composed)) - _characters(families)
    unprintable = {character for character in missing if not character.isprintable()}
    missing -= unprintable
    for family in _fallbacks() if missing else ():
        if covered := missing & _characters((family,)):
            families += (family,)
            missing -= covered
        if not missing:
            break
    table = str.maketrans(dict.fromkeys(missing | unprintable, MISSING))
    return [label.translate(table) for label in composed], {"fontfamily": list(families), "parse_math": False}


def plot_curves(axes: Axes, history: Mapping[str, Sequence[float]], name: str) -> None:
    """Draws `loss` or `accuracy` by epoch, for training images and, where it is known, for validation images."""
    epochs = history["epoch"]
    axes.plot(epochs, history[name], ".-", color=TRAINING, label="training")
    if f"val_{name}" in history:
        axes.plot(epochs, history[f"val_{name}"], ".-", color=VALIDATION, label="validation")
        best = _best(history.get("val_accuracy", ()), history.get("val_loss", ()))
        if best is not None:
            value = history[f"val_{name}"][best]
            label = f"best epoch {epochs[best]:g}: {value:.4g}"
            axes.plot(epochs[best], value, "*", markersize=14, color=VALIDATION, markeredgecolor="black", label=label)
    axes.set(xlabel="epoch", title=name, xlim=(epochs[0] - 0.5, epochs[-1] + 0.5))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    values = [value for key in (name, f"val_{name}") for value in history.get(key, ()) if value > 0]
    if name == "loss" and values and max(values) > 100 * min(values):
        axes.set_yscale("log")
    axes.grid(alpha=0.3)
    # below the axes: inside it would hide the first epochs, where the loss is high
    axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=3, frameon=False)


def _best(accuracies: Sequence[float], losses: Sequence[float]) -> int | None:
    known = [index for index, accuracy in enumerate(accuracies) if not math.isnan(accuracy)]
    return max(known, key=lambda index: (accuracies[index], -losses[index] if losses else 0), default=None)


def _mark_drops(axes: Axes, history: Mapping[str, Sequence[float]], at_top: bool) -> None:
    """Draws a dotted line at each epoch that began with a smaller rate, unless the schedule falls all the time."""
    rates = history.get("learning_rate", ())
    drops = [i for i in range(1, len(rates)) if rates[i] < rates[i - 1] * 0.999]
    if len(drops) > len(rates) / 2:
        return
    for i in drops:
        axes.axvline(history["epoch"][i], color="gray", linestyle=":", linewidth=1)
        axes.annotate(
            f"lr {rates[i]:.1e}",
            (history["epoch"][i], 1 if at_top else 0),
            xycoords=axes.get_xaxis_transform(),
            xytext=(2, -3 if at_top else 3),
            textcoords="offset points",
            rotation=90,
            va="top" if at_top else "bottom",
            fontsize=7,
            color="dimgray",
        )


def _shorten(label: str) -> str:
    return label if cell_len(label) <= LABEL_CELLS else set_cell_size(label, LABEL_CELLS - 1).rstrip() + "…"


def _fallbacks() -> Iterator[str]:
    """Yields font families to look for a character in, the likeliest first; opening one costs up to 16 MB."""
    # not matplotlib's own: its TeX fonts have odd tables and its "Last Resort" a box for every character
    own = get_data_path()
    installed = {font.name for font in font_manager.fontManager.ttflist if not font.fname.startswith(own)}
    yield from (name for name in CJK_FONTS if name in installed)
    if (name := _bundled()) is not None:
        yield name
    yield from sorted(installed - set(CJK_FONTS))  # for other scripts


@cache
def _bundled() -> str | None:
    """Registers the Noto Sans CJK of the mplfonts wheel; returns its family name, or None without the wheel.

    The file is found through the wheel's own record, because importing mplfonts loads its font tools.
    """
    package, file, name = BUNDLED_FONT
    try:
        font_manager.fontManager.addfont(str(distribution(package).locate_file(file)))
    except (PackageNotFoundError, OSError):
        return None
    return name


@cache
def _characters(families: tuple[str, ...]) -> frozenset[str]:
    """Returns the characters of the first installed one of these families."""
    path = font_manager.findfont(font_manager.FontProperties(family=families))
    return frozenset(map(chr, font_manager.get_font(path).get_charmap()))
