from pathlib import Path

import pytest

from app.settings import Settings
from app.tuning.sweep import NothingToTune, Outcome, Sweep
from tests.app.network import network, publish, random_images, reference
from training.contract.repository import ModelRepository


def sweep_of(root: Path, cores: int = 2, **settings: object) -> tuple[Sweep, list[str]]:
    told: list[str] = []
    values = {"models": root, "provider": "cpu"} | settings
    return Sweep(Settings.model_validate(values), 1, 2, (32, 24), cores, told.append), told


def tried(outcome: Outcome) -> list[set[tuple[str, int, int | None, int]]]:
    return [
        {(c.precision, c.threads, c.max_batch, c.decode_threads) for c in stage.measured} for stage in outcome.stages
    ]


def test_all_that_is_left_at_auto_is_tried(repository: ModelRepository, tmp_path: Path) -> None:
    publish(repository, int8=network())
    sweep, told = sweep_of(tmp_path, cores=3)
    outcome = sweep.run()
    first, second = tried(outcome)[:2]
    assert first == {(precision, threads, None, 3) for precision in ("fp32", "int8") for threads in (1, 2, 3)}
    best = next(iter(outcome.stages[1].measured))
    assert (best.precision, best.threads, None, 3) in first
    assert {(c[0], c[1]) for c in second} == {(best.precision, best.threads)}  # the others one at a time
    decoders = {1, 2, 3} if best.threads == 1 else {3}  # several threads decode what they run
    assert {c[3] for c in second if c[2] is None} == decoders
    assert {c[2] for c in second if c[3] == 3} == {None, 1, 2} - {best.auto_batch}  # as many as there are clients
    assert any("about 1 s" in line for line in told)


def test_every_candidate_has_its_figures(repository: ModelRepository, tmp_path: Path) -> None:
    publish(repository)
    for stage in sweep_of(tmp_path)[0].run().stages:
        lengths = {len(figures.rates) for figures in stage.measured.values()}
        assert lengths == {5 if stage.name.startswith("the best") else 3}
        assert all(figures.crowd and figures.alone and min(figures.rates) > 0 for figures in stage.measured.values())


def test_what_is_set_stays(repository: ModelRepository, tmp_path: Path) -> None:
    publish(repository, int8=network())
    sweep, _ = sweep_of(tmp_path, precision="int8", threads=1, max_batch=3, decode_threads=2)
    outcome = sweep.run()
    assert tried(outcome) == [{("int8", 1, 3, 2)}]
    assert outcome.best is None
    assert sweep.pinned == ["precision", "threads", "max_batch", "decode_threads"]


def test_precision_that_is_not_fit_is_left_out(repository: ModelRepository, tmp_path: Path) -> None:
    images = random_images(4)
    golden = {
        "images": images,
        "probabilities": reference(network(), images),
        "probabilities_int8": reference(network(1), images),
    }
    publish(repository, int8=network(), golden=golden)
    sweep, told = sweep_of(tmp_path, threads=1, max_batch=1, decode_threads=1)
    assert {c[0] for c in tried(sweep.run())[0]} == {"fp32"}
    assert any("int8 is left out: golden check" in line for line in told)


def test_without_an_active_version_it_says_so(repository: ModelRepository, tmp_path: Path) -> None:
    publish(repository, activate=False)
    with pytest.raises(NothingToTune, match=r"no version of 'resnext50' is active in .*: train one with"):
        sweep_of(tmp_path)
