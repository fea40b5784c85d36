import pytest

from training.weights.licences import LicenceRefused, check_licence


@pytest.mark.parametrize("licence", ["apache-2.0", "bsd-3-clause", "mit", "Copyright Fancy Inc.", "cc-by-4.0"])
def test_a_licence_that_allows_commercial_use_passes(licence: str) -> None:
    check_licence("w", licence, allow_noncommercial=False)


@pytest.mark.parametrize(
    "licence", ["cc-by-nc-4.0", "CC BY-NC-SA", "For non-commercial use.", "noncommercial", "research use only"]
)
def test_a_licence_that_forbids_it_has_to_be_allowed(licence: str) -> None:
    with pytest.raises(LicenceRefused, match=r"of the weights 'w' should allow commercial use.*--allow-noncommercial"):
        check_licence("w", licence, allow_noncommercial=False)
    check_licence("w", licence, allow_noncommercial=True)
