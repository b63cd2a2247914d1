"""Ways of a function for platforms: one is traced where the devices are known, all where lowering has to choose."""

import jax
import jax.numpy as jnp
import pytest
from jax import export
from jax.sharding import PartitionSpec

from c2am_jax.mesh import data_mesh
from c2am_jax.ops.platforms import by_platform, traced_for


@pytest.fixture
def traced():
    return []


@pytest.fixture
def function(traced):
    def way(name, factor):
        def run(x):
            traced.append(name)
            return x * factor

        return run

    return lambda x: by_platform(x, default=way("default", 1), cpu=way("cpu", 2), tpu=way("tpu", 3))


def test_a_program_over_a_mesh_is_traced_for_its_devices_alone(function, traced):
    mesh = data_mesh()
    program = jax.shard_map(function, mesh=mesh, in_specs=PartitionSpec("data"), out_specs=PartitionSpec("data"))
    assert jax.jit(program)(jnp.ones(8)).tolist() == [2] * 8
    assert traced == ["cpu"]


def test_in_a_loop_too(function, traced):
    looped = jax.shard_map(
        lambda x: jax.lax.map(function, x),
        mesh=data_mesh(),
        in_specs=PartitionSpec("data"),
        out_specs=PartitionSpec("data"),
    )
    assert jax.jit(looped)(jnp.ones((8, 2))).sum() == 32 and set(traced) == {"cpu"}


def test_a_function_alone_is_traced_for_all_and_an_export_holds_them(function, traced):
    assert jax.jit(function)(jnp.ones(1)) == 2
    assert set(traced) == {"default", "cpu", "tpu"}
    text = export.export(jax.jit(function), platforms=["cpu", "tpu", "cuda"])(jnp.ones(1)).mlir_module()
    assert text.count("stablehlo.multiply") >= 2 and "stablehlo.case" in text


def test_onnx_is_a_platform_that_only_its_own_trace_knows(traced):
    def function(x):
        return by_platform(x, default=lambda x: x, onnx=lambda x: traced.append("onnx") or -x)

    assert jax.jit(function)(jnp.ones(1)) == 1 and not traced
    with traced_for("onnx"):
        jax.make_jaxpr(function)(jnp.ones(1))
    assert traced == ["onnx"]
