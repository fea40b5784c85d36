"""A folder of images to a published, verified ResNeXt classifier."""

import os

# before anything imports ONNX Runtime, which otherwise reports to its maker, keeps an id of the machine in the user's
# cache for that, and without a network holds up the end of the process by up to 8 s
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
