"""Programs over the mesh."""

import jax
import jax.numpy as jnp
import pytest

from c2am_jax import mesh
from c2am_jax.config import load_experiment
from c2am_jax.mesh import ImageProgram, data_mesh
from c2am_jax.training.program import abstract_batch


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_float32_products_are_float32_on_every_platform(dtype):
    """Accelerators would take fewer bits unless the program asks; TPUs 8 of 24."""
    experiment = load_experiment("configs/glyphs_c2am.py").changed({"train.batch_size": 8})
    mesh = data_mesh()

    def local(value, images):
        return jnp.matmul(value, value) + images.inputs.image.sum()

    rule = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "per_image": True, "compute_dtype": dtype}
    program = ImageProgram(local, mesh, **rule)
    lowered = program.lower(jnp.ones((4, 4)), abstract_batch(experiment, mesh, 8), (64, 64))
    products = [line for line in lowered.as_text().splitlines() if "dot_general" in line and "tensor<4x4xf32>" in line]
    assert products and all("HIGHEST" in line for line in products), products


def test_options_that_a_compiler_does_not_know_are_left_out_with_a_warning(monkeypatch, caplog):
    monkeypatch.setitem(mesh.COMPILER_OPTIONS, "cpu", {"xla_no_such_option": "false"})
    mesh.compiler_options.cache_clear()
    assert mesh.compiler_options(data_mesh(jax.devices()[:1])) == {}
    assert "xla_no_such_option" in caplog.text
    monkeypatch.setitem(mesh.COMPILER_OPTIONS, "cpu", {"xla_cpu_enable_fast_math": False})
    mesh.compiler_options.cache_clear()
    assert mesh.compiler_options(data_mesh(jax.devices()[:1])) == {"xla_cpu_enable_fast_math": False}
    mesh.compiler_options.cache_clear()
