"""How one ONNX Runtime session runs: provider, threads, buffers, and the times that were measured."""
