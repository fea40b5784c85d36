"""What is done with an exported ONNX file: it is rewritten, quantized, run, measured and drawn."""
