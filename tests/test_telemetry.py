"""ONNX Runtime tells nobody that it runs here."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.process import ROOT


@pytest.mark.parametrize("module", ["app.execution.model", "training.exported.classifier"])
def test_onnx_runtime_keeps_no_id_to_report_by(module: str, tmp_path: Path) -> None:
    quiet = ("CI", "ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME")  # what would silence it, or move the file, without us
    environment = {name: value for name, value in os.environ.items() if name not in quiet and "PYTEST" not in name}
    environment["HOME"] = str(tmp_path)
    subprocess.run([sys.executable, "-c", f"import {module}"], cwd=ROOT, env=environment, check=True)
    assert not [*tmp_path.rglob("deviceid")]
