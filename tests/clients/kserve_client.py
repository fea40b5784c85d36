"""Asks a running service with KServe's own client: `make check-clients`. The client is too large for the suite.

It brings KServe's and Kubernetes' own models, which the InferenceService of docs/clients.md has to fit.
"""

import asyncio
import base64
import io
import re
import sys
from pathlib import Path

import numpy as np
import yaml
from kserve import (
    InferenceRESTClient,
    InferInput,
    InferRequest,
    RESTConfig,
    V1beta1InferenceService,
    V1beta1InferenceServiceSpec,
    V1beta1PredictorSpec,
)
from kserve.protocol.infer_type import RequestedOutput
from kubernetes.client import V1Container, V1Volume
from PIL import Image

MODEL = "resnext50"
PAGE = Path(__file__).parents[2] / "docs/clients.md"


def manifest() -> None:
    """Asserts that each field of the InferenceService is in the schema, and has its type."""
    (text,) = re.findall(r"^```yaml\n(apiVersion: .*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    service = yaml.safe_load(text)
    predictor = service["spec"]["predictor"]
    parts = (
        (service, V1beta1InferenceService),
        (service["spec"], V1beta1InferenceServiceSpec),
        (predictor, V1beta1PredictorSpec),
    )
    for part, kind in parts:
        unknown = set(part) - set(kind.attribute_map.values())
        assert not unknown, f"{kind.__name__} has no {unknown}"
    for container in predictor["containers"]:
        V1Container.model_validate(container)
    for volume in predictor["volumes"]:
        V1Volume.model_validate(volume)
    print("the InferenceService of docs/clients.md fits KServe's models")  # noqa: T201  a command's own output


async def main(url: str) -> None:
    """Asserts that each way to send an image gives the same answer."""
    async with InferenceRESTClient(RESTConfig(protocol="v2", timeout=30)) as client:
        assert await client.is_server_live(url)
        assert await client.is_server_ready(url)
        assert await client.is_model_ready(url, MODEL)
        file = io.BytesIO()
        Image.effect_noise((48, 48), 80).save(file, "PNG")
        text = InferInput("image", [1], "BYTES", [base64.b64encode(file.getvalue()).decode()])
        binary = InferInput("image", [1], "BYTES")
        binary.set_data_from_numpy(np.array([file.getvalue()], np.object_), binary_data=True)
        asked = [RequestedOutput("probabilities", parameters={"binary_data": True})]
        answers = [
            await client.infer(url, InferRequest(MODEL, [text], request_id="7"), model_name=MODEL),
            await client.infer(url, InferRequest(MODEL, [binary]), model_name=MODEL),
            await client.infer(url, InferRequest(MODEL, [binary], request_outputs=asked), model_name=MODEL),
        ]
    assert answers[0].id == "7"
    first, *others = (answer.outputs[0].as_numpy() for answer in answers)
    assert abs(first.sum() - 1) < 1e-5
    for other in others:
        np.testing.assert_allclose(other, first, rtol=1e-6)
    print(f"KServe's client agrees with itself in three ways: class {first.argmax()}")  # noqa: T201  a command's own output


if __name__ == "__main__":
    manifest()
    asyncio.run(main(sys.argv[1]))
