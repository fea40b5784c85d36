"""KServe's own client against a service that is running: `make check-clients`. It is too large for the suite."""

import asyncio
import base64
import io
import sys

import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput
from PIL import Image

MODEL = "resnext50"


async def main(url: str) -> None:
    """Every way to send an image should give the same answer."""
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
    asyncio.run(main(sys.argv[1]))
