"""A trained generator for programs that have no TechnoGen: StableHLO and ONNX."""
