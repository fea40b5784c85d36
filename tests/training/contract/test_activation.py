import json
from pathlib import Path

import pytest

from training.contract.activation import HISTORY_LENGTH, Activations
from training.errors import ContractError

VERSIONS = [1, 2, 3, 4]


@pytest.fixture
def activations(tmp_path: Path) -> Activations:
    return Activations(tmp_path)


def make_active(activations: Activations, *versions: int) -> None:
    for version in versions:
        activations.activate(version, VERSIONS)


def on_disk(folder: Path) -> list[int]:
    history: list[int] = json.loads((folder / "HISTORY").read_text())
    return history


def test_history_is_a_stack_without_doubles_of_the_top(activations: Activations, tmp_path: Path) -> None:
    make_active(activations, 1, 3, 3, 1)
    assert on_disk(tmp_path) == [1, 3, 1]
    activations.roll_back(3, VERSIONS, {})
    assert on_disk(tmp_path) == [1, 3]
    assert activations.active() == 3


@pytest.mark.parametrize("nonsense", [b"\xff\n", b"1" * 4400, b"", b"0", b"1\x002", "\u0661".encode()], ids=range(6))
def test_active_that_holds_anything_else_is_refused(activations: Activations, tmp_path: Path, nonsense: bytes) -> None:
    (tmp_path / "ACTIVE").write_bytes(nonsense)
    with pytest.raises(ContractError, match="ACTIVE should hold a version number, it holds"):
        activations.active()


def test_history_is_bounded(activations: Activations, tmp_path: Path) -> None:
    (tmp_path / "HISTORY").write_text(json.dumps([1, 2] * HISTORY_LENGTH))
    make_active(activations, 4)
    assert len(on_disk(tmp_path)) == HISTORY_LENGTH
    assert on_disk(tmp_path)[-2:] == [2, 4]


def test_rollback_past_the_history_keeps_what_went_before(activations: Activations, tmp_path: Path) -> None:
    make_active(activations, 1, 2)
    activations.roll_back(4, VERSIONS, {})
    assert on_disk(tmp_path) == [1, 4]


def test_repository_without_history_was_active_in_the_order_of_its_versions(
    activations: Activations, tmp_path: Path
) -> None:
    (tmp_path / "ACTIVE").write_text("3\n")
    assert activations.predecessors(VERSIONS) == [2, 1]
    make_active(activations, 4)
    assert on_disk(tmp_path) == [1, 2, 3, 4]


def test_first_activation_takes_nothing_for_active_that_never_was(activations: Activations) -> None:
    make_active(activations, 3)
    assert activations.predecessors(VERSIONS) == []


def test_first_activation_that_breaks_off_at_active_leaves_an_empty_history(
    activations: Activations, tmp_path: Path
) -> None:
    (tmp_path / ".ACTIVE.tmp").mkdir()  # where it would be written
    with pytest.raises(IsADirectoryError):
        make_active(activations, 3)
    assert on_disk(tmp_path) == []


@pytest.mark.parametrize("first", [True, False])
def test_crash_between_the_files_of_an_activation(activations: Activations, tmp_path: Path, first: bool) -> None:
    make_active(activations, *([] if first else [1, 2]))
    before = "[]" if first else (tmp_path / "HISTORY").read_text()
    make_active(activations, 3)
    (tmp_path / "HISTORY").write_text(before)  # as it lies there when ACTIVE has just been written
    assert activations.predecessors(VERSIONS) == ([] if first else [2, 1])
    make_active(activations, 4)
    assert on_disk(tmp_path) == ([3, 4] if first else [1, 2, 3, 4])


def test_crash_between_the_files_of_a_rollback_has_changed_nothing(activations: Activations, tmp_path: Path) -> None:
    make_active(activations, 1, 2, 3)
    activations.roll_back(2, VERSIONS, {})
    (tmp_path / "ACTIVE").write_text("3\n")  # as it lies there when HISTORY has just been written
    assert activations.predecessors(VERSIONS) == [2, 1]


def test_active_written_by_hand_counts_as_an_activation(activations: Activations, tmp_path: Path) -> None:
    make_active(activations, 1, 2)
    (tmp_path / "ACTIVE").write_text("4\n")
    assert activations.predecessors(VERSIONS) == [2, 1]


def test_predecessors_are_there_and_did_not_fail(activations: Activations) -> None:
    make_active(activations, 1, 2, 3, 2, 4)
    assert activations.predecessors(VERSIONS) == [2, 3, 1]
    assert activations.predecessors([1, 3, 4]) == [3, 1]
    activations.roll_back(2, VERSIONS, {4: "broken"})
    make_active(activations, 3)
    assert activations.predecessors(VERSIONS) == [2, 1]
    assert [(v, f.reason) for v, f in activations.failures().items()] == [(4, "broken")]


def test_number_that_comes_again_starts_afresh(activations: Activations, tmp_path: Path) -> None:
    make_active(activations, 4, 1, 4, 3)
    activations.roll_back(1, VERSIONS, {4: "broken", 3: "broken too"})
    activations.forget(4)
    assert on_disk(tmp_path) == [1]
    assert list(activations.failures()) == [3]


@pytest.mark.parametrize("text", ["", "{}", '["x"]', "[1"])
def test_history_and_failures_that_cannot_be_read(activations: Activations, tmp_path: Path, text: str) -> None:
    make_active(activations, 1)
    (tmp_path / "HISTORY").write_text(text)
    with pytest.raises(ContractError, match="HISTORY should hold a JSON list of versions"):
        activations.predecessors(VERSIONS)
    (tmp_path / "FAILURES").write_text(text.replace("{}", "7"))
    with pytest.raises(ContractError, match="FAILURES should hold versions and reasons"):
        activations.failures()
