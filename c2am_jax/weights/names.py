"""PyTorch names and layouts of our arrays, both ways: one rule per kind of array.

Our dotted names follow those of MMDetection; what differs is the last part (`kernel` for `weight`, ...) and the layout:

  convolutions      [out, in, y, x]          -> [y, x, in, out]
  transposed        [in, out, y, x]          -> [in, y, x, out]
  linear layers     [out, in]                -> [in, out]
  the first of them also reads its input in the order channel, y, x -> y, x, channel
  box regression    [4 K, D], [4 K]          -> [K, 4, D], [K, 4]
  mask predictor    [K, C, 1, 1]             -> [K, C]
"""

import re
from collections.abc import Mapping

import numpy as np

Shapes = Mapping[str, tuple[int, ...]]

_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}


def torch_name(name: str) -> str:
    """MMDetection's name of our array `name`."""
    module, leaf = name.rsplit(".", 1)
    return f"{re.sub(r'(?<=[0-9])[.]norm$', '.gn', module)}.{_LEAVES.get(leaf, leaf)}"


def _pooled_inputs(name: str, shape: tuple[int, ...], shapes: Shapes) -> tuple[int, int, int] | None:
    """(channels, height, width) of the RoI features that a linear layer reads, None for other layers."""
    if not name.endswith("shared_fcs.0.kernel"):
        return None
    channels = next(s[-1] for n, s in shapes.items() if n.startswith("neck.fpn_convs.0.conv.kernel"))
    side = round((shape[0] / channels) ** 0.5)
    return channels, side, side


def to_torch(name: str, value: np.ndarray, shapes: Shapes) -> np.ndarray:
    """Our array in PyTorch's layout; `shapes` of all our arrays."""
    shape = tuple(value.shape)
    if ".fc_reg." in name:
        return value.reshape(-1, *shape[2:])
    if name.endswith("conv_logits.kernel"):
        return value[:, :, None, None]
    if name.endswith("upsample.kernel"):
        return value.transpose(0, 3, 1, 2)
    if not name.endswith(".kernel"):
        return value
    if value.ndim == 4:
        return value.transpose(3, 2, 0, 1)
    pooled = _pooled_inputs(name, shape, shapes)
    if pooled is not None:
        channels, height, width = pooled
        value = value.reshape(height, width, channels, -1).transpose(2, 0, 1, 3).reshape(shape)
    return value.T


def from_torch(name: str, value: np.ndarray, shapes: Shapes) -> np.ndarray:
    """Inverse of `to_torch`.

    Raises:
      ValueError: the array does not have the shape that ours needs.
    """
    shape = tuple(shapes[name])
    if value.shape != torch_shape(name, shapes):
        raise ValueError(f"{torch_name(name)}: shape {value.shape}, but {torch_shape(name, shapes)} is needed")
    if ".fc_reg." in name or name.endswith("conv_logits.kernel"):
        return value.reshape(shape)
    if name.endswith("upsample.kernel"):
        return value.transpose(0, 2, 3, 1)
    if not name.endswith(".kernel"):
        return value
    if value.ndim == 4:
        return value.transpose(2, 3, 1, 0)
    value = value.T
    pooled = _pooled_inputs(name, shape, shapes)
    if pooled is not None:
        value = value.reshape(*pooled, -1).transpose(1, 2, 0, 3).reshape(shape)
    return value


def torch_shape(name: str, shapes: Shapes) -> tuple[int, ...]:
    """Shape of our array in PyTorch's layout."""
    placeholder = np.broadcast_to(np.float32(0), shapes[name])
    return tuple(to_torch(name, placeholder, shapes).shape)


def state_dict(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """All our arrays under PyTorch's names, in its layout."""
    shapes = {name: tuple(value.shape) for name, value in arrays.items()}
    return {torch_name(n): to_torch(n, np.asarray(v), shapes) for n, v in arrays.items()}
