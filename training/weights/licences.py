"""Licences of published weights: whether a licence forbids commercial use, and how that is refused."""

import re

from training.errors import TrainingError

_NONCOMMERCIAL = re.compile(r"\bnc\b|\bnon[-_ ]?commercial|\bresearch[-_ ](use[-_ ])?only\b", re.IGNORECASE)


class LicenceRefused(TrainingError):
    """Weights whose licence forbids commercial use, where nobody allowed that."""


def is_noncommercial(licence: str) -> bool:
    """Whether a licence's name or text forbids commercial use: `cc-by-nc-4.0` does, `apache-2.0` does not."""
    return _NONCOMMERCIAL.search(licence) is not None


def check_licence(name: str, licence: str, *, allow_noncommercial: bool) -> None:
    """Raises LicenceRefused for a licence that forbids commercial use, unless that is allowed.

    A model that starts from such weights comes under the same licence.
    """
    if is_noncommercial(licence) and not allow_noncommercial:
        raise LicenceRefused(
            f"the licence of the weights {name!r} should allow commercial use, {licence!r} does not. "
            "--allow-noncommercial takes them all the same"
        )
