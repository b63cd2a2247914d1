"""One function of one image, for a batch of them."""

from collections.abc import Callable
from typing import Any

import jax

from c2am_jax.ops.platforms import by_platform


def per_image(function: Callable[..., Any], *arguments: Any) -> Any:
    """``function(*arguments)`` of each image: first axis of every array, of results too.

    All images at once by `jax.vmap`; on a TPU one after the other, since a first axis of two fills two of eight rows of
    each vector there.
    """
    return by_platform(
        *arguments,
        tpu=lambda *batch: jax.lax.map(lambda image: function(*image), batch),
        default=jax.vmap(function),
    )
