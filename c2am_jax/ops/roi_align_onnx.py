"""RoIAlign as the operator that ONNX has for it: a JAX operation that only `to_onnx` lowers."""

import jax.numpy as jnp
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jaxtyping import Array, Float

ROI_ALIGN = Primitive("roi_align")


@ROI_ALIGN.def_abstract_eval
def _result(feature, boxes, *, stride, out):
    del stride
    return ShapedArray((*boxes.shape[:2], out, out, feature.shape[-1]), feature.dtype)


def align_level(
    feature: Float[Array, "b _ _ c"], boxes: Float[Array, "b r 4"], *, stride: int, out: int
) -> Float[Array, "b r {out} {out} c"]:
    """RoIAlign (aligned, average, adaptive sampling) of boxes in input pixels on one level of features."""
    return ROI_ALIGN.bind(feature, boxes.astype(jnp.float32), stride=stride, out=out)
