# mypy: ignore-errors
# (its packages are in an environment of their own)
"""MLServer: its V2 protocol with the image in base64, one inference worker a core, no adaptive batching."""

import base64
import json

from mlserver import MLModel
from mlserver.codecs import StringCodec
from mlserver.types import InferenceRequest, InferenceResponse

from benchmarks.peers.classifier import Classifier


class Runtime(MLModel):
    async def load(self) -> bool:
        self.classifier = Classifier()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        encoded = payload.inputs[0].data.root
        images = [self.classifier.decode(base64.b64decode(item)) for item in encoded]
        answers = [json.dumps(answer) for answer in self.classifier.classify(images)]
        return InferenceResponse(model_name=self.name, outputs=[StringCodec.encode_output("top5", answers)])
