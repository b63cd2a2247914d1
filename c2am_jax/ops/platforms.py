"""One function, written in several ways for several kinds of device."""

from collections.abc import Callable
from typing import Any

import jax


def by_platform(*arguments: Any, default: Callable[..., Any], **ways: Callable[..., Any]) -> Any:
    """``ways[PLATFORM](*arguments)`` of the platform that the program is for, else `default` of them.

    A program over a mesh knows its devices while it is traced, so one way alone is traced, differentiated and lowered.
    Elsewhere (a function compiled alone, or exported for several platforms) all ways are, and lowering chooses.

    Args:
      arguments: arrays.
      default: for platforms without a way of their own.
      ways: by JAX's names of platforms, "cpu" and "tpu".
    """
    device = getattr(jax.sharding.get_abstract_mesh(), "abstract_device", None)
    platform = getattr(device, "platform", None)
    if platform is None:
        return jax.lax.platform_dependent(*arguments, default=default, **ways)
    return ways.get(platform, default)(*arguments)
