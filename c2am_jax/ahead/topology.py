"""Devices that are not there, for which programs can be compiled: slices of TPU pods, and GPUs of one host.

TPUs need libtpu, the TPU compiler, which installs and runs on any Linux machine of type x86_64; GPUs need JAX's CUDA
plugin with NVIDIA's compiler. Neither needs the device.
"""

import contextlib
import dataclasses
import importlib.metadata
import importlib.util
import os
from collections.abc import Sequence
from typing import Any

import jax
from jax.experimental import topologies

from c2am_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Chip:
    """What a kind of device has.

    Attributes:
      kind: as JAX names it (`device_kind`).
      memory_gib: main memory of a chip, as its maker's pages say.
      peak_tflops: of bfloat16, as its maker's pages say.
      clock_ghz: to turn the compiler's cycles into time; None where the compiler gives no cycles.
      sides: of a topology: 2 or 3 for TPUs, 0 for GPUs of one host, which have a number.
    """

    kind: str
    memory_gib: float
    peak_tflops: float
    clock_ghz: float | None
    sides: int


# Memory and peak: docs.cloud.google.com/tpu/docs (v4, v5e, v5p, v6e), NVIDIA's data sheets (SXM modules).
# Clocks are not published. Those of v4, v5e and v5p follow from the peak: 4 matrix units of 128x128 per TensorCore, of
# which v4 and v5p have 2, with 2 FLOPs per element and cycle. v6e: that of v5p. With these, the compiler's estimate of
# a product of two 8192x8192 bfloat16 matrices reaches 93, 88, 90 and 70 % of the peaks (libtpu 0.0.41).
CHIPS = {
    "v4": Chip("TPU v4", 32, 275, 1.05, 3),
    "v5e": Chip("TPU v5 lite", 16, 197, 1.5, 2),
    "v5p": Chip("TPU v5", 95, 459, 1.75, 3),
    "v6e": Chip("TPU v6 lite", 32, 918, 1.75, 2),
    "h100": Chip("NVIDIA H100 80GB HBM3", 80, 989, None, 0),
    "a100": Chip("NVIDIA A100-SXM4-80GB", 80, 312, None, 0),
}
EXAMPLES = "v4:2x2x1, v5e:4x4, v5p:2x2x1, v6e:4x4, h100:8, a100:8"
LARGEST_FLAT, LARGEST_GPUS = 16, 16  # chips along a side of v5e and v6e; GPUs of a host

# What the compiler has to know of a GPU that it cannot ask: NVIDIA's data sheets and CUDA's table of compute
# capabilities, in the fields of XLA's GpuTargetConfigProto.
_GPU_FIELDS = {
    "h100": {
        "shared_memory_per_core": 233472,
        "core_count": 132,
        "fpus_per_core": 128,
        "memory_bandwidth": 3352320000000,
        "l2_cache_size": 52428800,
        "clock_rate_ghz": 1.98,
        "device_memory_size": 84942979072,
        "shared_memory_per_block_optin": 232448,
        "cuda_compute_capability": "{ major: 9 }",
    },
    "a100": {
        "shared_memory_per_core": 167936,
        "core_count": 108,
        "fpus_per_core": 64,
        "memory_bandwidth": 2039000000000,
        "l2_cache_size": 41943040,
        "clock_rate_ghz": 1.41,
        "device_memory_size": 85028896768,
        "shared_memory_per_block_optin": 166912,
        "cuda_compute_capability": "{ major: 8 }",
    },
}
_GPU_COMMON = {
    "threads_per_block_limit": 1024,
    "threads_per_warp": 32,
    "shared_memory_per_block": 49152,
    "threads_per_core_limit": 2048,
    "block_dim_limit_x": 2147483647,
    "block_dim_limit_y": 65535,
    "block_dim_limit_z": 65535,
    "registers_per_core_limit": 65536,
    "registers_per_block_limit": 65536,
    "device_vendor": '"NVIDIA Corporation"',
    "device_address_bits": 64,
    "ecc_enabled": "true",
    "driver_version": '"12.9.0"',
    "runtime_version": '"12.9.0"',
    "compile_time_toolkit_version": '"12.9.0"',
    "dnn_version": '"9.10.0"',
}


def chip_of(device_kind: str) -> Chip | None:
    """The kind by JAX's name, of devices that are there too; None for one that this table lacks."""
    return next((chip for chip in CHIPS.values() if chip.kind == device_kind), None)


def topology_devices(name: str, slices: int = 1) -> Sequence[Any]:
    """Devices of a topology such as "v5e:4x4" or "h100:8"; programs can be compiled for them, and that is all.

    A chip of a v4 or v5p is one device, as JAX presents them on the real machine.

    Args:
      name: kind of chip and sides of a slice, or the number of GPUs.
      slices: so many slices of TPUs, joined by the data centre's network.

    Raises:
      UserError: a topology that does not exist, or a compiler that is not installed.
    """
    generation, sides = kind_and_sides(name)
    if slices > 1 and CHIPS[generation].sides == 0:
        raise UserError(f"--slices {slices}: {name} is one host; only TPUs have slices")
    jax.config.update("jax_platforms", "cpu")  # the devices of this machine stay free for others
    if CHIPS[generation].sides == 0:
        return _gpus(name, generation, sides[0])
    return _tpus(name, generation, sides, slices)


def kind_and_sides(name: str) -> tuple[str, tuple[int, ...]]:
    """("v5e", (4, 4)) of "v5e:4x4", ("h100", (8,)) of "h100:8". Raises UserError for a topology that does not exist."""
    generation, _, rest = name.partition(":")
    chip, sides = CHIPS.get(generation), tuple(int(side) for side in rest.split("x") if side.isdigit())
    if chip is not None and "x".join(map(str, sides)) == rest:
        if chip.sides == 0 and len(sides) == 1 and 1 <= sides[0] <= LARGEST_GPUS:
            return generation, sides
        if len(sides) == chip.sides and _is_slice(sides):
            return generation, sides
    raise UserError(
        f"--topology {name}: no such topology; there are {EXAMPLES}; more sizes: v5e and v6e 1x1, 2x2, 2x4, 4x4, 4x8, "
        f"8x8, 8x16, 16x16; v4 and v5p 2x2x1, 2x2x2, 2x2x4, 2x4x4, 4x4x4 and larger; h100 and a100 1 to {LARGEST_GPUS}"
    )


def _is_slice(sides: tuple[int, ...]) -> bool:
    """Whether slices of this shape are handed out, by the tables of Google's documentation."""
    if len(sides) == 2:
        low, high = sides
        return (low, high) == (1, 1) or (low in (2, 4, 8, 16) and high in (low, 2 * low) and high <= LARGEST_FLAT)
    return sides == (2, 2, 1) or (all(side % 2 == 0 for side in sides) and sorted(sides) == list(sides))


def _tpus(name: str, generation: str, sides: tuple[int, ...], slices: int) -> Sequence[Any]:
    if importlib.util.find_spec("libtpu") is None:
        raise UserError(
            f"--topology {name}: libtpu, the TPU compiler, is not installed: pip install -r requirements-tpu.txt "
            '(or "c2am_jax[tpu]"); no TPU is needed'
        )
    # Read by libtpu when it is loaded: no question to the network for the machine it runs on, and no lock that keeps
    # a second process out.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    # What it misses without a TPU, and complains about; the topology is what counts.
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-4")
    options: dict[str, Any] = {"chip_config_name": "megacore"} if CHIPS[generation].sides == 3 else {}
    if sides == (1, 1):
        options["chips_per_host_bounds"] = [1, 1, 1]
    if slices > 1:
        options["num_slices"] = slices
    try:
        return topologies.get_topology_desc(platform="tpu", topology_name=name, **options).devices
    except Exception as error:  # which class depends on the release of libtpu
        raise UserError(
            f"--topology {name}: libtpu {_version('libtpu')} with jax {_version('jax')} says: {error}; "
            "requirements-tpu.txt names the release that goes with each jax"
        ) from None


def _gpus(name: str, generation: str, number: int) -> Sequence[Any]:
    if not any(importlib.util.find_spec(f"jax_cuda{major}_plugin") for major in (12, 13)):
        raise UserError(
            f'--topology {name}: JAX\'s CUDA plugin is not installed: pip install "c2am_jax[cuda12]"; no GPU is needed'
        )
    # Read when the plugin is loaded and when it compiles: there is no GPU to ask, and none to time kernels on.
    os.environ.setdefault("JAX_SKIP_CUDA_CONSTRAINTS_CHECK", "1")
    flags = os.environ.get("XLA_FLAGS", "")
    if "xla_gpu_autotune_level" not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --xla_gpu_autotune_level=0".strip()
    try:
        return topologies.get_topology_desc(
            platform="cuda", topology_name=generation, topology=f"1x1x{number}", target_config=gpu_target(generation)
        ).devices
    except Exception as error:  # which class depends on the release of the plugin
        raise UserError(f"--topology {name}: JAX's CUDA plugin says: {error}") from None


def gpu_target(generation: str) -> str:
    """XLA's GpuTargetConfigProto of a GPU, as text."""
    chip = CHIPS[generation]
    fields = _GPU_COMMON | _GPU_FIELDS[generation] | {"name": f'"{chip.kind}"'}
    info = "\n".join(
        f"  {key} {value}" if str(value).startswith("{") else f"  {key}: {value}" for key, value in fields.items()
    )
    return (
        f"gpu_device_info {{\n{info}\n}}\n"
        'platform_name: "CUDA"\ndnn_version_info { major: 9 minor: 10 patch: 0 }\n'
        f'device_description_str: "{chip.kind}"\n'
    )


def _version(package: str) -> str:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(package)
    return "?"
