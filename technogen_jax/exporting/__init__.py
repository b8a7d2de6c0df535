"""A trained generator as one file.

    model_file       the file in the format that the user asks for: npz, StableHLO or ONNX
    standalone       StableHLO and ONNX: files for programs without TechnoGen, with a card (JSON) beside them
    real_arithmetic  rewrites a JAX function without complex numbers, Fourier transforms and loops
    onnx_graph       writes a JAX function in real arithmetic as an ONNX graph

The npz format, for TechnoGen itself, is `technogen_jax.runs.bundle`.
"""
