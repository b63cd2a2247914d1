"""PyTorch weights in and out, and the comparison with the reference's recorded numbers."""
