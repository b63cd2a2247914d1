"""PyTorch weights: files, names and layouts.

Our dotted names follow MMDetection's; what differs is the last part (kernel, scale, mean, var for weight, weight,
running_mean, running_var) and the order of axes.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from c2am_jax.errors import UserError

_LAST = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}


def torch_name(name: str) -> str:
    """Our dotted name -> the reference's."""
    stem, last = name.rsplit(".", 1)
    return f"{stem}.{_LAST[last]}"


def torch_shape(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of the reference's tensor for our array of this name and shape."""
    if name.endswith("fc_reg.kernel"):
        return shape[0] * 4, shape[2]
    if name.endswith("fc_reg.bias"):
        return (shape[0] * 4,)
    if name.endswith("conv_logits.kernel"):
        return (*shape, 1, 1)
    if name.endswith("upsample.kernel"):
        return shape[0], shape[3], 2, 2
    if len(shape) == 4:
        return shape[3], shape[2], shape[0], shape[1]
    return shape[::-1]


def from_torch(name: str, value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The reference's tensor in our layout.

    Args:
      name: our dotted name.
      value: the tensor.
      shape: of our array; only the first fully connected layer needs it, to tell channels from positions.

    Raises:
      ValueError: the tensor has another size.
    """
    if value.shape != torch_shape(name, shape):
        raise ValueError(f"{torch_name(name)}: shape {value.shape}, expected {torch_shape(name, shape)}")
    if name.endswith(("fc_reg.kernel", "fc_reg.bias", "conv_logits.kernel")):
        return value.reshape(shape)
    if name.endswith("upsample.kernel"):
        return value.transpose(0, 2, 3, 1)
    if len(shape) == 4:
        return value.transpose(2, 3, 1, 0)
    return value.T


def flatten_channels_last(value: np.ndarray, channels: int) -> np.ndarray:
    """Reorder the inputs of the first fully connected layer [C * S * S, D] from (C, S, S) to (S, S, C)."""
    side = int(round((value.shape[0] // channels) ** 0.5))
    return value.reshape(channels, side, side, -1).transpose(1, 2, 0, 3).reshape(value.shape)


def flatten_channels_first(value: np.ndarray, channels: int) -> np.ndarray:
    """Inverse of `flatten_channels_last`."""
    side = int(round((value.shape[0] // channels) ** 0.5))
    return value.reshape(side, side, channels, -1).transpose(2, 0, 1, 3).reshape(value.shape)


def _fpn_channels(shapes: Mapping[str, tuple[int, ...]]) -> int:
    return shapes["neck.fpn_convs.0.conv.kernel"][-1]


def to_ours(
    weights: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, np.ndarray]:
    """Arrays of the detector that `weights` has under the reference's names; a bare ResNet's names count as
    ``backbone.*``. What does not fit in shape is left out.

    Args:
      weights: the reference's names and tensors.
      shapes: of all our arrays by dotted name.
    """
    found = {}
    for name, shape in shapes.items():
        source = torch_name(name)
        value = weights.get(source, weights.get(source.removeprefix("backbone.")))
        if value is None or value.shape != torch_shape(name, shape):
            continue
        value = from_torch(name, np.asarray(value), shape)
        if name.endswith("shared_fcs.0.kernel"):
            value = flatten_channels_last(value, _fpn_channels(shapes))
        found[name] = value
    return found


def to_torch(arrays: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """All arrays of a detector under the reference's names and in its layout (inverse of `to_ours`)."""
    shapes = {name: value.shape for name, value in arrays.items()}
    tensors = {}
    for name, value in arrays.items():
        value = np.asarray(value)
        if name.endswith("shared_fcs.0.kernel"):
            value = flatten_channels_first(value, _fpn_channels(shapes))
        shape = torch_shape(name, value.shape)
        if name.endswith(("fc_reg.kernel", "fc_reg.bias", "conv_logits.kernel")):
            value = value.reshape(shape)
        elif name.endswith("upsample.kernel"):
            value = value.transpose(0, 3, 1, 2)
        elif value.ndim == 4:
            value = value.transpose(3, 2, 0, 1)
        else:
            value = value.T
        tensors[torch_name(name)] = value
    return tensors


def read_weights(path: str | Path) -> dict[str, np.ndarray]:
    """Tensors of a ``.npz`` or a PyTorch ``.pth`` file by name (a nested ``state_dict`` is unpacked).

    ``.pth`` needs torch installed and is read as data only: a pickle that wants to run code is refused.

    Raises:
      UserError: the file is missing, broken, or of another kind.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                return {name: file[name] for name in file.files}
        if path.suffix in (".pth", ".pt"):
            return _read_torch(path)
    except (OSError, ValueError, EOFError, RuntimeError) as error:
        raise UserError(f"{path}: not a readable weight file ({error})") from None
    raise UserError(f"{path}: weights come as .npz, .pth or .pt")


def _read_torch(path: Path) -> dict[str, np.ndarray]:
    try:
        import torch
    except ImportError:
        raise UserError(f"{path}: reading PyTorch files needs torch (pip install torch), or convert to .npz") from None
    import pickle

    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(f"{path}: holds more than tensors, or is broken: {error}") from None
    content = content.get("state_dict", content) if isinstance(content, dict) else {}
    return {name: value.numpy() for name, value in content.items() if isinstance(value, torch.Tensor)}
