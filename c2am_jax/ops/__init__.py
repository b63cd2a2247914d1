"""Static-shape array functions of one image, without parameters; callers batch them with `jax.vmap`."""
