"""All that needs TensorFlow: the network, its input pipeline, and what happens while it is fitted."""
