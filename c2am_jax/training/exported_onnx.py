"""A trained detector as one ONNX file with the weights inside."""

from typing import Any

import jax

from c2am_jax.ops.platforms import ONNX, traced_for
from c2am_jax.to_onnx.graph import OPSET
from c2am_jax.to_onnx.program import convert
from c2am_jax.training.exported import ExportShape, describe, inputs_of, predict_function
from c2am_jax.training.restore import TrainedDetector


def export_onnx(trained: TrainedDetector, shape: ExportShape, *, threshold: float) -> tuple[bytes, dict[str, Any]]:
    """The exported file's content and its description.

    Raises:
      UserError: a method of the user's has an operation that no rule of `to_onnx` knows.
    """
    function, inputs = predict_function(trained, shape, threshold), inputs_of(shape)
    with traced_for(ONNX):
        model = convert(function, inputs)
        outputs = jax.eval_shape(function, *inputs.values())
    return model.SerializeToString(), describe(trained, shape, threshold, outputs, {"format": "onnx", "opset": OPSET})
