"""What a report was made with."""

import importlib.metadata
import platform
from datetime import UTC, datetime

import c2am_jax

PACKAGES = ("jax", "jaxlib", "flax", "tensorflow", "tensorflow-cpu", "numpy", "pycocotools", "lvis")


def environment(*, devices: bool) -> dict[str, str]:
    """Versions, machine and time; `devices`: JAX's too."""
    found = {
        "c2am_jax": c2am_jax.__version__,
        "written": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "Python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
    }
    if devices:
        import jax

        kinds = [device.device_kind for device in jax.devices()]
        found["devices"] = ", ".join(f"{kinds.count(kind)} × {kind}" for kind in dict.fromkeys(kinds))
        found["processes"] = str(jax.process_count())
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
