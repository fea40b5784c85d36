import pytest

from app.rollout.attempts import LONGEST_PAUSE_S, ActiveState, Attempts

STATE = ActiveState(2, 100)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_versions_own_fault_is_tried_again_when_the_version_changes() -> None:
    attempts = Attempts(1, Clock())
    assert not attempts.forbid(STATE)
    attempts.failed(STATE, momentary=False)
    assert attempts.forbid(STATE)
    assert not attempts.forbid(ActiveState(2, 101))
    attempts.clear()
    assert not attempts.forbid(STATE)


def test_pause_doubles_while_the_moment_lasts() -> None:
    clock = Clock()
    attempts = Attempts(1, clock)
    for pause in (1, 2, 4, 8, 16, 32, LONGEST_PAUSE_S, LONGEST_PAUSE_S):
        attempts.failed(STATE, momentary=True)
        clock.now += pause - 0.01
        assert attempts.forbid(STATE)
        clock.now += 0.01
        assert not attempts.forbid(STATE)
    attempts.failed(ActiveState(3, 100), momentary=True)
    clock.now += 1
    assert not attempts.forbid(ActiveState(3, 100))


@pytest.mark.parametrize("momentary", [True, False])
def test_another_state_is_not_held_up(momentary: bool) -> None:
    attempts = Attempts(1, Clock())
    attempts.failed(STATE, momentary=momentary)
    assert not attempts.forbid(ActiveState(1, 100))
