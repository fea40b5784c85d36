"""The service: trained ResNeXt classifiers over HTTP. Never imports TensorFlow."""

__version__ = "0.1.0"
