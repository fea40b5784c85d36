"""The work on an exported ONNX file: rewrite, quantize, run, measure and draw."""
