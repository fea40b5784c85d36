"""The service: trained ResNeXt classifiers over HTTP. Never imports TensorFlow."""

import os

__version__ = "0.1.0"

# set in training/__init__.py too, since either package may be imported first
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
