"""The service: trained ResNeXt classifiers over HTTP. Never imports TensorFlow."""

import os

__version__ = "0.1.0"

# as in training/__init__.py: whichever of the two is imported first
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
