"""Settings and fixtures of every test: CPU, eight virtual devices, the shared reference material."""

import importlib.util
import json
import os
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of reference vectors, golden outputs and real data beside the checkout."""
    if not SHARED.is_dir():
        pytest.skip(f"the reference material is not at {SHARED}")
    return SHARED


@pytest.fixture(scope="module", autouse=True)
def free_programs():
    """Compiled programs of one file are not kept for the next: a process with all of them grows to 10 GB."""
    yield
    jax.clear_caches()


@pytest.fixture(scope="session")
def _compiled(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture(scope="module")
def compile_quickly(_compiled):
    """Runs share their compiled steps, as with JAX_COMPILATION_CACHE_DIR, and XLA spends less on optimising them."""
    chosen = {"jax_compilation_cache_dir": str(_compiled), "jax_disable_most_optimizations": True}
    before = {name: jax.config.values[name] for name in chosen}
    for settings in (chosen, before):
        for name, value in settings.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()  # else the folder of the first compilation stays
        if settings is chosen:
            yield


@pytest.fixture(scope="module")
def workdir(tmp_path_factory, compile_quickly) -> Path:
    """Of a run with one checkpoint of random weights, for commands that read workdirs."""
    from untrained import untrained_run

    return untrained_run(tmp_path_factory.mktemp("run"))


EMULATOR = (
    "STORAGE_EMULATOR_HOST",
    "TENSORSTORE_GCS_HTTP_URL",
    "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT",
    "GOOGLE_AUTH_TOKEN_FOR_TESTING",
)


@pytest.fixture(scope="module")
def emulator():
    """A server with the empty bucket "pods", which this process and those that it starts take for Cloud Storage."""
    if importlib.util.find_spec("gcsfs") is None:  # not imported: it reads the environment then
        pytest.skip('needs the extra "gcs"')
    from gcs_server import Server

    from c2am_jax import files, storage

    before = {name: os.environ.pop(name, None) for name in EMULATOR}
    with Server("pods") as server:
        os.environ["STORAGE_EMULATOR_HOST"] = server.address
        for cached in (files._prepare_remote, storage._client):
            cached.cache_clear()
        yield server
    for name, value in before.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value


@pytest.fixture(scope="session")
def scoring_files():
    """``folder -> None``: writes gt.json with one object, and dt.json, which finds it."""
    image = {"id": 1, "height": 9, "width": 9, "file_name": "a"}
    image |= {"neg_category_ids": [], "not_exhaustive_category_ids": []}
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 5, 5], "area": 25, "segmentation": []}
    truth = {"images": [image], "annotations": [box], "categories": [{"id": 1, "name": "a", "frequency": "f"}]}
    found = [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 5, 5], "score": 0.5}]

    def write(folder: Path) -> None:
        (folder / "gt.json").write_text(json.dumps(truth))
        (folder / "dt.json").write_text(json.dumps(found))

    return write
