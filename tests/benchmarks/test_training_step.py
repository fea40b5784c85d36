"""The table that says how a training step compares."""

from pathlib import Path

import pytest

from benchmarks import training_step
from benchmarks.training_step import Case, Contestant


def test_a_case_is_read_from_its_name() -> None:
    case = Case.read("8x224x224:bfloat16")
    assert (case.batch, case.size, case.precision) == (8, 224, "bfloat16")
    assert str(case) == "224 x 224, batch 8, bfloat16"


def test_images_that_are_not_square_are_refused() -> None:
    with pytest.raises(ValueError, match="224 x 200"):
        Case.read("8x224x200:float32")


def test_the_table_compares_medians_with_ours() -> None:
    case = Case(32, 64, "float32")
    ours = Contestant("ours", [], case, rates=[90.0, 120.0, 100.0], first_step=12.34)
    peer = Contestant("PyTorch", [], case, rates=[80.0, 81.0, 79.0], first_step=3.0)
    assert training_step.table({case: [ours, peer]}).splitlines()[2:] == [
        "| 64 x 64, batch 32, float32 | ours | 90 / 100 / 120 | 1.00x | 12.3 s |",
        "|  | PyTorch | 79.0 / 80.0 / 81.0 | 1.25x | 3.0 s |",
    ]


def test_a_contestant_that_ends_says_its_name() -> None:
    contestant = Contestant("PyTorch", ["false"], Case(1, 32, "float32"))
    with pytest.raises(RuntimeError, match="PyTorch ended with status 1"):
        contestant.start()
    contestant.end()


def test_a_contestant_answers_for_as_many_steps_as_it_is_asked(tmp_path: Path) -> None:
    """It speaks the protocol of both trainers: a line about itself, then a line for each that it reads."""
    trainer = tmp_path / "trainer.sh"
    trainer.write_text(
        """echo '{"version": "v", "parameters": 7}'; while read n; do echo '{"seconds": '$n', "loss": 1}'; done"""
    )
    contestant = Contestant("fast", ["sh", str(trainer)], Case(4, 32, "float32"))
    contestant.start()
    contestant.warm_up()
    contestant.race()
    contestant.end()
    assert (contestant.version, contestant.parameters) == ("v", 7)
    assert contestant.rates == [4.0]  # a step of four images takes it a second
    assert contestant.process.returncode == 0
