"""Settings and fixtures of every test: CPU, eight virtual devices, the shared reference material."""

import os
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of reference vectors, golden outputs and real data beside the checkout."""
    if not SHARED.is_dir():
        pytest.skip(f"the reference material is not at {SHARED}")
    return SHARED
