"""Compares two classifiers on the same images: is one better, or is the difference chance?"""

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from training.contract.verdict import Comparison

MOST = 100  # where more than this many times the images would be needed, no number is named


def compare_answers(candidate: NDArray[np.bool_], active: NDArray[np.bool_], significance: float) -> Comparison:
    """Compares two classifiers on the same images. `candidate` and `active` say which answers are right, bool [N].

    McNemar, "Note on the sampling error of the difference between correlated proportions" (1947), in its exact form:
    if the two are equally good, each image on which only one is right is the toss of a coin.
    """
    ours, theirs = int((candidate & ~active).sum()), int((active & ~candidate).sum())
    p_value = _p_value(ours, ours + theirs)
    differ = p_value < significance
    return Comparison(
        images=len(active),
        candidate_only=ours,
        live_only=theirs,
        p_value=p_value,
        outcome=("better" if ours > theirs else "worse") if differ else "indistinguishable",
        images_to_tell=None if differ else _images_to_tell(len(active), max(ours, theirs), ours + theirs, significance),
    )


def _p_value(hits: int, tosses: int) -> float:
    return float(binomtest(hits, tosses).pvalue) if tosses else 1.0


def _images_to_tell(images: int, hits: int, tosses: int, significance: float) -> int | None:
    """Returns how many more images would tell the two apart, if the same share goes on to differ the same way."""
    if not tosses or hits * 2 == tosses:
        return None
    for more in range(tosses + 1, MOST * tosses):
        if _p_value(round(more * hits / tosses), more) < significance:
            return round(more * images / tosses) - images
    return None
