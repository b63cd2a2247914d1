"""Where a run computes: devices, versions, and what about this machine or its JAX needs the user's attention."""

import importlib.metadata
import os
import platform
from datetime import UTC, datetime
from pathlib import Path

import c2am_jax

PCI = Path("/sys/bus/pci/devices")
NVIDIA, GOOGLE = "0x10de", "0x1ae0"
DISPLAY_CLASSES = ("0x0300", "0x0302")  # PCI classes of GPUs: VGA and 3D controllers
# PCI device ids of TPU v2/v3, v4, v5p, v5e, v6e, v7x: the list in JAX's own jax/_src/hardware_utils.py.
TPUS = ("0x0027", "0x0056", "0x005e", "0x0062", "0x0063", "0x006f", "0x0076")

PACKAGES = ("jax", "jaxlib", "flax", "tensorflow", "tensorflow-cpu", "numpy", "pycocotools", "lvis")
OLDEST_JAX, UNTESTED_JAX = (0, 10, 1), (0, 13)
SLOW_SCATTER_JAX = ((0, 10, 2), (0, 11, 0))


def devices_line() -> str:
    """Backend, kinds of devices and their number: "devices: 8 × NVIDIA H100 80GB HBM3 (gpu)"."""
    import jax

    hosts = f", {jax.process_count()} processes" if jax.process_count() > 1 else ""
    return f"devices: {_kinds()} ({jax.default_backend()}{hosts}), jax {jax.__version__}"


def _kinds() -> str:
    """ "8 × NVIDIA H100 80GB HBM3", each kind with its number."""
    import jax

    kinds = [device.device_kind for device in jax.devices()]
    return ", ".join(f"{kinds.count(kind)} × {kind}" for kind in dict.fromkeys(kinds))


def warnings() -> list[str]:
    """One line for each thing that the user should know before the run: versions, an accelerator that is not used."""
    import jax

    found = [*version_warnings(jax.__version__, importlib.metadata.version("flax"), jax.default_backend())]
    unused = accelerator_here() if jax.default_backend() == "cpu" and not os.environ.get("JAX_PLATFORMS") else None
    if unused:
        named, extra = ("a TPU", "tpu") if unused == "TPU" else ("an NVIDIA GPU", "cuda13")
        found.append(
            f'this machine has {named}, but JAX computes on the CPU: pip install "c2am_jax[{extra}]" '
            "(docs/install.md), or set JAX_PLATFORMS=cpu if that is what you want"
        )
    return found


def accelerator_here(pci: Path = PCI) -> str | None:
    """ "TPU" or "NVIDIA GPU" if the PCI bus has one, whether JAX can use it or not; else None.

    `pci` is the folder where Linux lists the devices of the bus. Other systems have none.
    """

    def read(folder: Path, name: str) -> str:
        try:
            return (folder / name).read_text().strip()
        except OSError:
            return ""

    for folder in sorted(pci.glob("*")):
        vendor = read(folder, "vendor")
        if vendor == GOOGLE and read(folder, "device") in TPUS:
            return "TPU"
        if vendor == NVIDIA and read(folder, "class").startswith(DISPLAY_CLASSES):
            return "NVIDIA GPU"
    return None


def version_warnings(jax_version: str, flax_version: str, backend: str) -> list[str]:
    """One line for each known trouble of a pair of versions; requirements.txt has the reasons."""
    jax, flax = _release(jax_version), _release(flax_version)
    found = []
    if not OLDEST_JAX <= jax < UNTESTED_JAX:
        found.append(f'jax {jax_version} is outside the tested range, 0.10.1 to 0.12: pip install "jax>=0.10.1,<0.13"')
    if jax in SLOW_SCATTER_JAX:
        cost = "training on this GPU is slow" if backend == "gpu" else "training on a GPU would be slow"
        found.append(
            f"jax {jax_version} compiles scatter-add badly for CUDA, {cost}: install 0.10.1, or 0.11.1 or later"
        )
    if (flax <= (0, 12, 8) and jax >= (0, 11, 1)) or (flax == (0, 12, 9) and jax >= (0, 11, 2)):
        found.append(f"flax {flax_version} does not work with jax {jax_version}: pip install -U flax")
    if flax >= (0, 12, 9) and jax < (0, 11, 1):
        found.append(f"flax {flax_version} needs jax 0.11.1 or later, this is {jax_version}: pip install -U jax")
    return found


def _release(version: str) -> tuple[int, ...]:
    """(0, 12, 0) of "0.12.0.1" and of "0.12.0.dev3"."""
    return tuple(int(part) for part in version.split(".")[:3] if part.isdigit())


def made_with(*, devices: bool) -> dict[str, str]:
    """Versions, machine and time; `devices`: JAX's too."""
    found = {
        "c2am_jax": c2am_jax.__version__,
        "written": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "Python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
    }
    if devices:
        import jax

        found["devices"] = _kinds()
        found["processes"] = str(jax.process_count())
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
