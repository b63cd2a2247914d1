"""FLOPs counted by hand: products, convolutions of every kind, and loops."""

import hlo
import jax
import jax.numpy as jnp
import pytest

from c2am_jax.ahead.hlo_text import parse
from c2am_jax.ahead.work import flops_by_part, joined


def counted(function, *shapes):
    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return sum(flops_by_part(parse(jax.jit(function).lower(*arguments).compile().as_text())).values())


def test_a_product_and_one_in_a_loop():
    assert counted(jnp.matmul, (8, 16), (16, 32)) == 2 * 8 * 16 * 32
    product = 2 * 6 * 32 * 32 * 32
    assert counted(lambda x: jax.lax.fori_loop(0, 7, lambda i, c: jnp.sin(c @ c), x), (6, 32, 32)) == 7 * product


def test_what_is_chosen_counts_once():
    def either(x):
        return jax.lax.cond(x[0, 0] > 0, lambda x: x @ x, lambda x: x @ (x @ x), x)

    assert counted(either, (32, 32)) == 2 * 2 * 32**3


@pytest.mark.parametrize("stride", [1, 2])
def test_a_convolution_and_its_gradients_leave_out_padding_and_holes(stride):
    def convolution(x, kernel):
        return jax.lax.conv_general_dilated(
            x, kernel, (stride, stride), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    side = 3 * 16 - 2 if stride == 1 else 3 * 8 - 1  # pairs of output and input along a side of 16
    once = 2 * 4 * side**2 * 8 * 24
    assert counted(convolution, (4, 16, 16, 8), (3, 3, 8, 24)) == once
    both = jax.grad(lambda x, kernel: jnp.sum(convolution(x, kernel) ** 2), (0, 1))
    assert counted(both, (4, 16, 16, 8), (3, 3, 8, 24)) == 3 * once


def test_a_side_of_a_convolution_counts_pairs_that_exist():
    plain = {"size": 5, "kernel": 3, "outputs": 5, "stride": 1, "low": 1, "base_dilation": 1, "kernel_dilation": 1}
    assert joined(**plain) == 5 * 3 - 2
    assert joined(**plain | {"stride": 2, "outputs": 3}) == 3 * 3 - 2
    # Transposed: 9 places, of which 5 hold inputs; every other output of 9 meets one, those between meet two.
    assert joined(**plain | {"base_dilation": 2, "outputs": 9}) == 5 * 1 + 4 * 2
    # A batch of 5 products, written as a convolution whose kernel is the batch: each output meets its own input only.
    batch = {"size": 5, "kernel": 5, "outputs": 5, "stride": 4, "low": 0, "base_dilation": 5, "kernel_dilation": 1}
    assert joined(**batch) == 5


def test_fusions_of_a_tpu_and_library_calls_of_a_gpu_are_read():
    assert flops_by_part(parse(hlo.TPU)) == {"backbone": 2 * 2 * 46**2 * 8 * 32}
    filter_gradient, product = 2 * (3 * 512 - 2) ** 2 * 16 * 16, 2 * 64 * 32 * 8
    assert flops_by_part(parse(hlo.GPU)) == {"other": filter_gradient + 2 * product}
