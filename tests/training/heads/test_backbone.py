"""The files of backbones."""

import os
from pathlib import Path

from training.contract.manifest import Preprocessing
from training.heads.backbone import MOST, Backbone

PIXELS = Preprocessing(height=32, width=32)


def test_a_file_is_kept_for_the_same_weights_and_pixels(tmp_path: Path) -> None:
    made = tmp_path / "made"
    made.write_text("graph")
    backbone = Backbone(tmp_path / "cache", "a", PIXELS)
    assert not backbone.take("model.onnx", tmp_path / "taken")
    backbone.keep("model.onnx", made)
    made.unlink()
    assert Backbone(tmp_path / "cache", "a", PIXELS).take("model.onnx", tmp_path / "taken")
    assert (tmp_path / "taken").read_text() == "graph"
    for identity, pixels in (("b", PIXELS), ("a", PIXELS.model_copy(update={"height": 64}))):
        assert not Backbone(tmp_path / "cache", identity, pixels).take("model.onnx", tmp_path / "other")


def test_those_that_were_used_longest_ago_go(tmp_path: Path) -> None:
    made = tmp_path / "made"
    made.write_text("graph")
    backbones = [Backbone(tmp_path / "cache", str(i), PIXELS) for i in range(MOST + 1)]
    for age, backbone in enumerate(backbones[:-1]):
        backbone.keep("model.onnx", made)
        os.utime(backbone.folder, (1000 + age, 1000 + age))
    assert backbones[0].take("model.onnx", tmp_path / "taken")  # used now
    backbones[-1].keep("model.onnx", made)
    kept = [backbone.take("model.onnx", tmp_path / "again") for backbone in backbones]
    assert kept == [True, False, *[True] * (MOST - 1)]
