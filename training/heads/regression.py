"""Multinomial logistic regression on features, folded into the last layer of a network.

With few images a class this beats the training of all layers: Kim et al., "How to Adapt Your Large-Scale
Vision-and-Language Model" (2022) and docs/training.md have figures.
"""

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from threadpoolctl import threadpool_limits

from training.heads.features import Features
from training.heads.folding import Head

STRENGTHS = (0.003, 0.03, 0.3, 3.0)  # of C, the inverse of the regularization
FOLDS = 5
ITERATIONS = 500
MOST_TO_CHOOSE = 2000  # images that choose C
CONSTANT = 1e-4  # a feature whose spread is below this says nothing: a small backbone has many dead ones
LEAST_PROBABILITY = 1e-7
LEAST_SPREAD = 0.3  # of the median spread: a smaller one would give weights of hundreds, which fine-tuning cannot take

Labels = NDArray[np.int32]
Folds = list[tuple[NDArray[np.intp], NDArray[np.intp]]]


@dataclass(frozen=True)
class Standardization:
    """The mean of each feature and the factor that it is multiplied by afterwards, float64 [features]."""

    mean: NDArray[np.float64]
    factor: NDArray[np.float64]

    @classmethod
    def of(cls, features: NDArray[np.float32]) -> "Standardization":
        """Measures features [N, features]. A nearly constant one gets the factor 0."""
        mean, spread = features.mean(0, dtype=np.float64), features.std(0, dtype=np.float64)
        varies = spread > CONSTANT
        least = LEAST_SPREAD * float(np.median(spread[varies])) if varies.any() else 1.0
        return cls(mean, np.where(varies, 1 / np.maximum(spread, least), 0.0))

    def __call__(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        return (features - self.mean) * self.factor


def fit_head(features: Features, labels: Labels, classes: int, *, balanced: bool, seed: int) -> tuple[Head, float]:
    """Returns the head of a regression on features [N, features], and the C that was chosen for it.

    Each of the classes needs an image. C is the one with the best accuracy in a cross-validation.
    """
    with threadpool_limits(1):
        strength = _choose_strength(features, labels, classes, balanced, seed)
        return _fit(features, labels, classes, strength, balanced), strength


def cross_validated(
    features: Features, labels: Labels, classes: int, strength: float, *, balanced: bool, seed: int
) -> NDArray[np.float32]:
    """Returns probabilities for each image from a head that was fitted without it, float32 [N, classes].

    The only image of a class is answered by a head that does not know the class.
    """
    with threadpool_limits(1):
        return _answers(_folds(labels, seed), features, labels, classes, strength, balanced)


def probabilities_of(head: Head, features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns the head's probabilities for features [N, features]: float32 [N, classes]."""
    logits = features @ head.kernel + head.bias
    exponentials = np.exp(logits - logits.max(1, keepdims=True))
    probabilities: NDArray[np.float32] = exponentials / exponentials.sum(1, keepdims=True)
    return probabilities


def fit(features: Features, labels: Labels, classes: int, strength: float, *, balanced: bool) -> Head:
    """Returns the head of a regression with a given C. Each of the classes needs an image."""
    with threadpool_limits(1):  # two threads take five to a hundred times as long on such small matrices
        return _fit(features, labels, classes, strength, balanced)


def _fit(features: Features, labels: Labels, classes: int, strength: float, balanced: bool) -> Head:
    standardize = Standardization.of(features)
    regression = LogisticRegression(C=strength, max_iter=ITERATIONS, class_weight="balanced" if balanced else None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # 500 steps are near enough: the accuracy decides
        regression.fit(standardize(features), labels)
    kernel = np.zeros((classes, features.shape[1]))
    bias = np.full(classes, -np.inf)
    if len(regression.classes_) == 2:  # scikit-learn gives one logit for two classes
        half = regression.coef_[0] / 2, regression.intercept_[0] / 2
        found, offsets = np.stack([-half[0], half[0]]), np.array([-half[1], half[1]])
    else:
        found, offsets = regression.coef_, regression.intercept_
    kernel[regression.classes_] = found * standardize.factor
    bias[regression.classes_] = offsets - kernel[regression.classes_] @ standardize.mean
    return Head(np.ascontiguousarray(kernel.T, np.float32), bias.astype(np.float32))


def _choose_strength(features: Features, labels: Labels, classes: int, balanced: bool, seed: int) -> float:
    if len(labels) > MOST_TO_CHOOSE:
        chosen = np.random.default_rng(seed).permutation(len(labels))[:MOST_TO_CHOOSE]
        features, labels = features[chosen], labels[chosen]
    folds = _folds(labels, seed)
    scores = {}
    for strength in STRENGTHS:
        answers = _answers(folds, features, labels, classes, strength, balanced)
        truth = np.clip(answers[np.arange(len(labels)), labels], LEAST_PROBABILITY, 1)
        # of few images several strengths name as many rightly: the likelihood tells them apart
        scores[strength] = (int((answers.argmax(1) == labels).sum()), float(np.log(truth).mean()))
    return max(STRENGTHS, key=lambda strength: scores[strength])


def _folds(labels: Labels, seed: int) -> Folds:
    """Returns rows to fit and rows to test for each fold. A class of two images or more is in every fit."""
    least = int(np.unique(labels, return_counts=True)[1].min())
    splitter = StratifiedKFold(min(FOLDS, max(2, least)), shuffle=True, random_state=seed % 2**32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of a class with a single image
        return list(splitter.split(np.zeros(len(labels)), labels))


def _answers(
    folds: Folds,
    features: Features,
    labels: Labels,
    classes: int,
    strength: float,
    balanced: bool,
) -> NDArray[np.float32]:
    """Returns the probabilities of each image, by a head that did not see it."""
    answers = np.zeros((len(labels), classes), np.float32)
    for rows, test in folds:
        if len(known := np.unique(labels[rows])) == 1:  # of two classes, one has a single image
            answers[test, known[0]] = 1
            continue
        head = _fit(features[rows], labels[rows], classes, strength, balanced)
        answers[test] = probabilities_of(head, features[test])
    return answers
