"""Devices that are not there: which there are, what is missing in one line, and programs compiled for them."""

import importlib.metadata
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from c2am_jax.ahead import topology
from c2am_jax.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
HAS_LIBTPU = importlib.util.find_spec("libtpu") is not None
needs_libtpu = pytest.mark.skipif(not HAS_LIBTPU, reason="libtpu is not installed (requirements-tpu.txt)")
# Compiling for a TPU goes on in a process of its own: libtpu stays in the process that loads it.
PRODUCT = """
import json, sys
import jax, jax.numpy as jnp
from c2am_jax.ahead.compiled import compile_and_describe
from c2am_jax.ahead.topology import topology_devices
from c2am_jax.mesh import data_mesh, batch_sharding, replicated

devices = topology_devices(sys.argv[1])
mesh = data_mesh(devices)

def loss(kernel, x):
    with jax.named_scope("backbone"):
        x = jax.lax.fori_loop(0, 5, lambda i, x: jnp.sin(x @ kernel), x)
    with jax.named_scope("anchor_sampling"):
        return jax.lax.top_k(x.sum(1), 128)[0].sum()

def step(kernel, x):
    local = jax.shard_map(lambda k, x: jax.lax.psum(loss(k, x), "data"), mesh=mesh,
                          in_specs=(jax.P(), jax.P("data")), out_specs=jax.P())
    return local(kernel, x)

kernel = jax.ShapeDtypeStruct((256, 256), jnp.bfloat16, sharding=replicated(mesh))
x = jax.ShapeDtypeStruct((1024 * len(devices), 256), jnp.bfloat16, sharding=batch_sharding(mesh))
print(json.dumps(compile_and_describe(jax.jit(step).lower(kernel, x), devices[0].device_kind, images=2).numbers))
"""

TOO_LARGE = """
import sys
import jax, jax.numpy as jnp
from c2am_jax.ahead.compiled import compile_and_describe
from c2am_jax.ahead.topology import topology_devices
from c2am_jax.errors import guarded
from c2am_jax.mesh import data_mesh, replicated

def main():
    devices = topology_devices("v5e:1x1")
    x = jax.ShapeDtypeStruct((100_000, 512), jnp.float32, sharding=replicated(data_mesh(devices)))
    compile_and_describe(jax.jit(lambda x: x @ x.T).lower(x), devices[0].device_kind, images=1)

sys.exit(guarded(main)())
"""


@pytest.fixture
def missing(monkeypatch):
    """``package -> None``: it is not installed any more."""

    def hide(*names):
        usual = importlib.util.find_spec
        monkeypatch.setattr(topology.importlib.util, "find_spec", lambda n: None if n in names else usual(n))

    return hide


@pytest.mark.parametrize("name", ["v5e", "v5e:3x3", "v5e:4x4x4", "v4:4x4", "v4:1x2x2", "v7:2x2", "h100:0", "h100:2x2"])
def test_a_topology_that_does_not_exist_is_told_with_those_that_do(name):
    with pytest.raises(UserError, match=rf"--topology {name}: no such topology; there are v4:2x2x1, v5e:4x4, .*h100:8"):
        topology.topology_devices(name)


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("v5e:4x4", "libtpu, the TPU compiler, is not installed: pip install -r requirements-tpu.txt"),
        ("v5p:2x2x4", "no TPU is needed"),
        ("h100:8", 'CUDA plugin is not installed: pip install "c2am_jax[cuda12]"'),
    ],
)
def test_a_compiler_that_is_missing_is_named_with_its_install_line(name, named, missing):
    missing("libtpu", "jax_cuda12_plugin", "jax_cuda13_plugin")
    with pytest.raises(UserError) as error:
        topology.topology_devices(name)
    assert named in str(error.value) and name in str(error.value)


def test_chips_are_found_by_the_name_that_jax_gives_them():
    assert topology.chip_of("TPU v5 lite") is topology.CHIPS["v5e"] and topology.chip_of("cpu") is None
    assert 'name: "NVIDIA H100 80GB HBM3"' in topology.gpu_target("h100")


def test_requirements_name_the_libtpu_that_this_jax_asks_for():
    asked = [r for r in importlib.metadata.requires("jax") or () if r.startswith("libtpu")]
    if not re.match(r"0\.(10\.1|12\.0)", jax.__version__):
        pytest.skip(f"jax {jax.__version__} is none of those that requirements-tpu.txt names")
    marker = 'python_version < "3.12"' if sys.version_info < (3, 12) else 'python_version >= "3.12"'
    lines = (ROOT / "requirements-tpu.txt").read_text().splitlines()
    (ours,) = [line.partition(";")[0] for line in lines if line.startswith("libtpu") and line.endswith(marker)]
    assert [line.partition(";")[0].strip() for line in asked] == [ours.strip()]


def run(*arguments, timeout=400):
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=timeout)
    return done.returncode, done.stdout, done.stderr


@needs_libtpu
def test_a_program_compiled_for_a_tpu_tells_time_memory_and_what_its_chips_exchange():
    status, out, err = run("-c", PRODUCT, "v5e:2x2")
    assert status == 0, err
    numbers = json.loads(out)
    products = 5 * 2 * 1024 * 256 * 256
    assert numbers["gflops_per_image"] == pytest.approx(products / 2 / 1e9, rel=1e-3)
    assert numbers["memory_gib"]["of_device"] == 16 and numbers["memory_gib"]["fits"]
    estimate = numbers["estimate"]
    assert estimate["clock_ghz"] == 1.5 and 0 < estimate["ms"] < 1 and 0 < estimate["share_of_peak"] < 1
    assert estimate["by_part"][0]["name"] == "backbone"
    assert [(loop["trips"], loop["known"]) for loop in estimate["loops"]] == [(5, True)]
    assert {row["opcode"] for row in numbers["no_estimate"]} & {"sort", "custom-call TopK"}
    assert numbers["collectives"] == {"all-reduce": {"count": 1, "bytes": 2, "in_loop": 0}}


GRADIENT = """
import json, sys
import jax, jax.numpy as jnp
from c2am_jax.ahead.compiled import compile_and_describe
from c2am_jax.ahead.topology import topology_devices
from c2am_jax.mesh import data_mesh, batch_sharding, replicated

mesh = data_mesh(topology_devices("v5e:2x2", slices=2))

def gradient(kernel, x):
    kernel = jax.lax.pcast(kernel, "data", to="varying")
    return jax.lax.psum(jax.grad(lambda kernel: jnp.sum((x @ kernel) ** 2))(kernel), "data")

program = jax.shard_map(gradient, mesh=mesh, in_specs=(jax.P(), jax.P("data")), out_specs=jax.P())
kernel = jax.ShapeDtypeStruct((1024, 512), jnp.float32, sharding=replicated(mesh))
x = jax.ShapeDtypeStruct((64, 1024), jnp.float32, sharding=batch_sharding(mesh))
found = compile_and_describe(jax.jit(program).lower(kernel, x), "TPU v5 lite", 8)
slices = [device.slice_index for device in mesh.devices.flat]
print(json.dumps({"slices": slices, "collectives": found.numbers["collectives"]}))
"""


@needs_libtpu
def test_slices_sum_within_before_they_exchange_a_chips_share():
    status, out, err = run("-c", GRADIENT)
    assert status == 0, err
    found = json.loads(out)
    assert found["slices"] == [0, 0, 0, 0, 1, 1, 1, 1]
    kernel = 1024 * 512 * 4
    sums = {kind: numbers["bytes"] for kind, numbers in found["collectives"].items()}
    assert sums == {"reduce-scatter": kernel // 4, "between slices": kernel // 4, "all-gather": kernel}


@needs_libtpu
def test_a_program_that_does_not_fit_is_one_line_with_what_to_change():
    status, _, err = run("-c", TOO_LARGE)
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert status == 2 and "does not fit in the memory of a TPU v5 lite" in line
    assert "take fewer images per device" in line and "Traceback" not in err
