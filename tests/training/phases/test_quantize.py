"""The model at other precisions: what becomes of it, and when one is left out."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from rich.console import Console

from tests.training.conftest import Trained
from tests.training.phases.runs import verified
from training.config import Gate
from training.contract.intervals import Proportion
from training.contract.manifest import CPU_FILE, FP16_FILE, INT8_FILE
from training.contract.verdict import Verdict
from training.exported.classifier import onnx_classifier
from training.phases.quantize import quantize, why_left_out, write_fp16
from training.runs.console import ProgressLog
from training.runs.records import QuantizationRecord, VerificationRecord, verdict_of
from training.runs.run import Run

QUIET = Console(quiet=True)
OFF = {"enabled": False}


def made(run: Run) -> QuantizationRecord:
    record = quantize(run, run.record("gating", Verdict), ProgressLog(run.progress, QUIET))
    run.finish("quantizing", record)
    return record


def test_a_version_has_an_fp16_variant_that_is_as_good(trained: Trained, tmp_path: Path) -> None:
    variants, folder = trained.manifest.variants, trained.repository.path(1)
    fp16, fp32 = variants["fp16"].accuracy, variants["fp32"].accuracy
    assert fp16
    assert fp32
    assert fp16 >= fp32 - 0.005
    assert variants["fp16"].agreement
    assert variants["fp16"].agreement > 0.99
    assert variants["fp16"].images_per_second is None  # a CPU cannot say
    assert FP16_FILE in trained.manifest.files
    assert (folder / FP16_FILE).stat().st_size < 0.7 * (
        folder / "model.onnx"
    ).stat().st_size  # most of this one is names
    with np.load(folder / "golden.npz") as golden:
        images, expected = golden["images"], golden["probabilities_fp16"]
    answers = write_fp16(folder / "model.onnx", tmp_path / "again.onnx")(images)
    np.testing.assert_array_equal(answers, expected)  # what it was judged by
    np.testing.assert_allclose(
        onnx_classifier(folder / FP16_FILE)(images), expected, atol=0.01
    )  # what a CPU makes of it
    assert (tmp_path / "again.onnx").read_bytes() == (folder / FP16_FILE).read_bytes()
    assert "labels" in {p.key for p in onnx.load(folder / FP16_FILE).metadata_props}


@pytest.mark.parametrize(("int8", "fp16"), [(OFF, OFF), (OFF, {}), ({}, OFF)], ids=["none", "fp16", "int8"])
def test_each_can_be_switched_off(
    trained: Trained, tmp_path: Path, int8: dict[str, object], fp16: dict[str, object]
) -> None:
    run = verified(trained, tmp_path / "run", int8=int8, fp16=fp16)
    wanted = {name for name, config in {"int8": int8, "fp16": fp16}.items() if config is not OFF}
    variants = made(run).variants
    assert set(variants) == {"fp32", *wanted}
    assert variants["fp32"].file == run.record("verifying", VerificationRecord).variants["fp32"].file
    assert {path.name for path in run.package.glob("model.*.onnx")} == {
        CPU_FILE,
        *(f"model.{name}.onnx" for name in wanted),
    }


def test_again_after_a_crash_gives_the_same(trained: Trained, tmp_path: Path) -> None:
    run = verified(trained, tmp_path / "run")  # its package holds the files and the golden answers already
    made(run)
    for file in (INT8_FILE, FP16_FILE):
        assert (run.package / file).read_bytes() == (trained.repository.path(1) / file).read_bytes()
    assert not list(run.folder.glob(".quantizing*"))


def test_those_that_answer_otherwise_are_left_out_and_the_verdict_says_so(trained: Trained, tmp_path: Path) -> None:
    run = verified(trained, tmp_path / "run", int8={"methods": ["minmax"]})
    with np.load(run.answers) as answers:
        np.savez(run.answers, **{split: (named + 1) % 10 for split, named in answers.items()})  # float32 said otherwise
    record = run.record("verifying", VerificationRecord)
    record.notes.append("model.cpu.onnx is left out: its accuracy is odd")
    run.finish("verifying", record)
    result = made(run)
    assert set(result.variants) == {"fp32"}
    assert [note.split(" is left out: ")[0] for note in result.notes] == [CPU_FILE, "int8", "fp16"]
    assert "of 538 held-out images it names" in result.notes[2]
    assert [path.name for path in run.package.glob("model.*.onnx")] == [CPU_FILE]
    assert verdict_of(run).notes[-3:] == result.notes


@pytest.mark.parametrize(
    ("images", "differing", "lost", "kept"),
    [
        (54, 1, 1, True),  # one of 27 test images
        (54, 2, 2, True),
        (54, 5, 0, True),
        (54, 6, 0, False),
        (54, 5, 3, False),
        (2000, 150, 10, True),
        (2000, 150, 11, False),
        (2000, 201, 0, False),
    ],
)
def test_a_variant_is_judged_by_its_agreement_and_two_images_never_decide(
    images: int, differing: int, lost: int, kept: bool
) -> None:
    why = why_left_out(Gate(), Proportion(images - differing, images), lost)
    assert (why is None) == kept, why


@pytest.mark.parametrize(
    ("changes", "skipped"),
    [({"passed": False}, True), ({"dry_run": True}, True), ({"passed": False, "policy": "never"}, False)],
)
def test_none_is_made_of_a_version_that_float32_alone_has_ruled_out(
    trained: Trained, tmp_path: Path, changes: dict[str, object], skipped: bool
) -> None:
    run = verified(trained, tmp_path / "run", int8=OFF)
    run.finish("gating", run.record("gating", Verdict).model_copy(update=changes))
    record = made(run)
    assert record.skipped is skipped
    assert set(record.variants) == ({"fp32"} if skipped else {"fp32", "fp16"})
