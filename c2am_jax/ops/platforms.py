"""One function, written in several ways for several kinds of device."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import jax

ONNX = "onnx"  # no platform of JAX: graphs of ONNX are traced for it (`traced_for`)


def by_platform(*arguments: Any, default: Callable[..., Any], **ways: Callable[..., Any]) -> Any:
    """``ways[PLATFORM](*arguments)`` of the platform that the program is for, else `default` of them.

    A program over a mesh knows its devices while it is traced, so one way alone is traced, differentiated and lowered.
    Elsewhere (a function compiled alone, or exported for several platforms) all ways are, and lowering chooses.

    Args:
      arguments: arrays.
      default: for platforms without a way of their own.
      ways: by JAX's names of platforms, "cpu" and "tpu", and "onnx" for a graph of ONNX (`traced_for`).
    """
    device = getattr(jax.sharding.get_abstract_mesh(), "abstract_device", None)
    platform = getattr(device, "platform", None)
    if platform is None:
        known = {name: way for name, way in ways.items() if name != ONNX}
        return jax.lax.platform_dependent(*arguments, default=default, **known)
    return ways.get(platform, default)(*arguments)


@contextlib.contextmanager
def traced_for(platform: str) -> Iterator[None]:
    """What is traced inside is for `platform` alone, which need not be one of JAX's."""
    device = jax.sharding.AbstractDevice(device_kind=platform, num_cores=None, platform=platform)
    axis = jax.sharding.AxisType.Auto
    with jax.sharding.use_abstract_mesh(
        jax.sharding.AbstractMesh((1,), ("data",), axis_types=(axis,), abstract_device=device)
    ):
        yield
