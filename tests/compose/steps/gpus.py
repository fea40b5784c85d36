import json

from tests.compose.engine import FILES, compose


def gpus() -> None:
    """docker-compose.gpu.yml gives images with CUDA and one GPU each. Compose reads it on a machine without a GPU."""
    merged = json.loads(compose(*FILES, "--file", "docker-compose.gpu.yml", "config", "--format", "json", API_GPU="1"))
    for name, gpu in (("api", "1"), ("trainer", "0")):
        service = merged["services"][name]
        assert service["build"]["args"] == {"ACCELERATOR": "cuda"}
        assert service["image"].endswith(":cuda")
        assert "memory" in service["deploy"]["resources"]["limits"]
        (device,) = service["deploy"]["resources"]["reservations"]["devices"]
        assert (device["driver"], device["device_ids"], device["capabilities"]) == ("nvidia", [gpu], ["gpu"])
    assert merged["services"]["api"]["environment"]["RESNEXT_PROVIDER"] == "cuda"
