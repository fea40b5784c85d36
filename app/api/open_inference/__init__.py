"""The Open Inference Protocol, V2: over REST and gRPC, as KServe, Triton and OpenVINO's server speak it."""
