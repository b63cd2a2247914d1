"""A JAX function as an ONNX graph: each operation of its jaxpr becomes operators of ONNX."""
