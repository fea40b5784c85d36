"""The table of providers."""

import mmap
from pathlib import Path
from typing import get_args

import onnxruntime
import pytest

from app.execution import tensorrt
from app.execution.provider import HALF_OPTIONS, PROVIDERS, Provider


def test_every_provider_has_its_rules() -> None:
    assert set(PROVIDERS) == set(get_args(Provider))
    assert all("fp32" in facts.precisions for facts in PROVIDERS.values())  # every version has it
    assert PROVIDERS["tensorrt"].fallbacks == ("cuda", "cpu")
    assert PROVIDERS["cuda"].options["use_tf32"] == 0
    assert HALF_OPTIONS["use_tf32"] == 1
    assert PROVIDERS["cuda"].options["cudnn_conv_algo_search"] == "HEURISTIC"


@pytest.mark.parametrize("name", [name for name, facts in PROVIDERS.items() if facts.nvidia])
def test_the_options_are_those_of_this_build(name: Provider) -> None:
    """Nothing here can try them out, but each name lies in the library that reads it."""
    library = Path(onnxruntime.__file__).parent / "capi" / f"libonnxruntime_providers_{name}.so"
    if not library.exists():
        pytest.skip("this build has no GPU part")
    cuda = dict(PROVIDERS["cuda"].options) | HALF_OPTIONS | {"enable_cuda_graph": 1}
    options = {"cuda": cuda, "tensorrt": tensorrt.options("fp16", (8, 8, 3), [1])}
    names = [*options[name], *(tensorrt.cache_options(Path("x")) if name == "tensorrt" else ())]
    with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        assert [option for option in names if text.find(option.encode()) < 0] == []
