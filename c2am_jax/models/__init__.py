"""flax.nnx modules: parameters and forward passes."""
