"""Programs over the mesh of devices: the only shard_map, placement of arrays, and the images that each device sees."""

import dataclasses
import functools
import logging
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from c2am_jax.ops.preprocess import preprocess
from c2am_jax.structures import Batch, Inputs

AXIS = "data"
# For the compiler of each platform. A TPU's would cut the maps of a convolution into pieces, lay these side by side as
# more images, and put them together again; with a few images per chip that costs more than the convolutions do
# (docs/scaling.md has the numbers).
COMPILER_OPTIONS = {
    "tpu": {"xla_tpu_run_space_to_batch": "false", "xla_tpu_run_space_to_batch_on_new_platforms": "false"},
}


def data_mesh(devices: Sequence[Any] | None = None) -> Mesh:
    """All devices (or those given) in one row, those of a slice side by side.

    The TPU compiler then makes of a sum over the row a sum within each slice, an exchange between the slices in which
    each device takes its part, and the way back within the slice (docs/scaling.md).
    """
    devices = jax.devices() if devices is None else list(devices)
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    if slices == 1:
        return jax.make_mesh((len(devices),), (AXIS,), axis_types=(AxisType.Auto,), devices=devices)
    row = mesh_utils.create_hybrid_device_mesh((len(devices) // slices,), (slices,), devices)  # make_mesh refuses
    return Mesh(row, (AXIS,), axis_types=(AxisType.Auto,))


@functools.cache
def compiler_options(mesh: Mesh) -> dict[str, str]:
    """`COMPILER_OPTIONS` of the mesh's platform; none, with a warning, if its compiler does not know one of them."""
    device = mesh.devices.flat[0]
    options = COMPILER_OPTIONS.get(device.platform, {})
    if options:
        number = jax.ShapeDtypeStruct((), jnp.float32, sharding=replicated(mesh))
        try:
            jax.jit(lambda x: x + 1, compiler_options=options).lower(number).compile()
        except jax.errors.JaxRuntimeError as error:
            text = str(error).splitlines()[0][:200]
            logging.warning(
                "%s: the compiler does not know options that make steps faster (%s): install the version that "
                "requirements-%s.txt names",
                device.device_kind,
                text,
                device.platform,
            )
            return {}
    return options


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """First axis over the mesh."""
    return NamedSharding(mesh, PartitionSpec(AXIS))


def replicated(mesh: Mesh) -> NamedSharding:
    """The same on every device."""
    return NamedSharding(mesh, PartitionSpec())


def on_devices(batch: Batch, mesh: Mesh) -> Batch:
    """The global batch, first axis over the mesh, of which this process made the part `batch`."""
    return jax.make_array_from_process_local_data(batch_sharding(mesh), jax.tree.map(np.asarray, batch))


def image_key(seed: jax.Array | int, step: jax.Array | int, position: jax.Array) -> jax.Array:
    """PRNG keys of images at `position` [N] of the global batch.

    A function of (seed, step, position) only: it does not matter how many devices share the batch.
    """
    key = jax.random.fold_in(jax.random.key(seed), step)
    return jax.vmap(lambda p: jax.random.fold_in(key, p))(position)


@dataclasses.dataclass(frozen=True)
class LocalImages:
    """One device's images of a global batch, inside a program.

    Attributes:
      batch: B images as the host made them.
      seed: of the program.
      prepare: turns them, or a part of them, into the network's input.
    """

    batch: Batch
    seed: jax.Array
    prepare: Callable[[Batch], Inputs]

    @property
    def inputs(self) -> Inputs:
        """All images as the network's input."""
        return self.prepare(self.batch)

    def keys(self, step: jax.Array | int, first: int = 0) -> jax.Array:
        """`image_key` of each image, [B]; `first` is where the batch begins in a larger one that was cut."""
        count = self.batch.image.shape[0]
        position = jax.lax.axis_index(AXIS) * count + jnp.arange(count)
        return image_key(self.seed, step, position + first if first else position)


class ImageProgram:
    """``(value, batch, bucket) -> local(value, images)`` on every device of a mesh, compiled once per bucket.

    The seed is an argument of the program, so runs that differ in their seed share one (and its entry in a cache).
    """

    def __init__(
        self,
        local: Callable[[Any, LocalImages], Any],
        mesh: Mesh,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        seed: int = 0,
        compute_dtype: str = "float32",
        per_image: bool = False,
        donate: bool = False,
    ):
        """Compiles nothing yet.

        Args:
          local: what a device does with `value` (the same on all devices) and its own images.
          mesh: the devices, in one row.
          mean, std: of pixels.
          seed: of `LocalImages.keys`.
          compute_dtype: of the network's input and with it of features and convolutions, "float32" or "bfloat16".
          per_image: results have the device's images as their first axis; else they are the same on all devices.
          donate: `value` is given up, and its memory taken for the results.
        """
        self.seed = np.uint32(seed & 0xFFFFFFFF)

        @jax.default_matmul_precision("highest")  # float32 is float32: accelerators would take fewer bits by default
        def program(value, batch, seed, bucket):
            def prepare(images: Batch) -> Inputs:
                with jax.named_scope("preprocess"):
                    inputs = preprocess(images, bucket, mean=mean, std=std)
                    return dataclasses.replace(inputs, image=inputs.image.astype(compute_dtype))

            return jax.shard_map(
                lambda value, batch, seed: local(value, LocalImages(batch, seed, prepare)),
                mesh=mesh,
                in_specs=(PartitionSpec(), PartitionSpec(AXIS), PartitionSpec()),
                out_specs=PartitionSpec(AXIS) if per_image else PartitionSpec(),
            )(value, batch, seed)

        program.__name__ = local.__name__  # that profiles show, and part of what compilation caches look up
        self._program = jax.jit(
            program,
            static_argnums=3,
            donate_argnums=(0,) if donate else (),
            compiler_options=compiler_options(mesh),
        )

    def __call__(self, value: Any, batch: Batch, bucket: tuple[int, int]) -> Any:
        """What `local` returns of a global batch, whose images are padded to `bucket` (H, W)."""
        return self._program(value, batch, self.seed, bucket)

    def lower(self, value: Any, batch: Batch, bucket: tuple[int, int]) -> jax.stages.Lowered:
        """The program; compiled, it takes ``(value, batch, seed)``."""
        return self._program.lower(value, batch, self.seed, bucket)
