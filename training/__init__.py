"""Trains a ResNeXt classifier on a folder of images, verifies it and publishes it."""

import os

# Set before anything imports ONNX Runtime. Otherwise it reports to its maker, keeps an id of the machine in the user's
# cache for that, and without a network delays the end of the process by up to 8 s.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
