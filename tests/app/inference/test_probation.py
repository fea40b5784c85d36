from app.inference.probation import Probation


def counted(images: int, error_rate: float, outcomes: str) -> list[str]:
    """Returns the reasons given while these images come: x failed, o did not."""
    reasons: list[str] = []
    probation = Probation(images, error_rate, lambda p: reasons.append(p.reason))
    for outcome in outcomes:
        probation.count(failed=outcome == "x")
    return reasons


def test_fails_once_with_the_first_failure_too_many() -> None:
    assert counted(20, 0.1, "oxoxoo") == []
    assert counted(20, 0.1, "oxoxooxxxx") == ["the model failed on 3 of the first 7 images after it went live"]


def test_a_rate_of_nothing_bears_no_failure() -> None:
    assert len(counted(20, 0, "oox")) == 1


def test_ends_with_its_images() -> None:
    assert counted(5, 0.2, "xoooo" + "xxxxx") == []


def test_restart_counts_from_the_next_image() -> None:
    failed: list[Probation] = []
    probation = Probation(10, 0.1, failed.append)
    for _ in range(2):
        probation.count(failed=True)
    probation.restart()
    probation.count(failed=True)
    assert len(failed) == 1
    probation.count(failed=True)
    assert len(failed) == 2
