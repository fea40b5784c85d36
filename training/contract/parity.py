"""The rule by which two networks give the same answer, for a version's verification and for every load."""

import numpy as np
from numpy.typing import NDArray

TOLERANCE = 1e-4  # of a probability, Keras against ONNX Runtime
TIE = 1e-6  # two classes whose probabilities differ by less in Keras may change places


def same_class(reference: NDArray[np.float32], candidate: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Returns for each image whether the candidate names the reference's top class, or one that ties with it there.

    Both are probabilities [images, classes]; the result is bool [images]. NaN in the reference is no tie.
    """
    rows = np.arange(len(reference))
    lead = reference[rows, reference.argmax(1)] - reference[rows, candidate.argmax(1)]
    ties: NDArray[np.bool_] = lead <= TIE
    return ties
