"""Annotations drawn on pictures, one page with the worst suspects first: `python -m c2am_jax.data.browse`."""
