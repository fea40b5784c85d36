"""The modules that need TensorFlow: the network, its input pipeline, and the callbacks of its training."""
