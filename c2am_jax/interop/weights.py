"""Read weights from files, whatever names they use."""

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from c2am_jax.errors import UserError
from c2am_jax.interop.names import Shapes, from_torch, torch_name, torch_shape


def read_weights(path: str | Path) -> dict[str, np.ndarray]:
    """Arrays by name of a ``.npz``, or of a ``.pth`` (needs torch; nothing but tensors is unpickled).

    Raises:
      UserError: no such file, a broken one, or one of another kind.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    if path.suffix == ".npz":
        try:
            with np.load(path, allow_pickle=False) as file:
                return dict(file)
        except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise UserError(f"{path}: not a file of arrays: {error}") from None
    if path.suffix in (".pth", ".pt"):
        return _read_torch(path)
    raise UserError(f"{path}: weights come as .npz, .pth or .pt")


def _read_torch(path: Path) -> dict[str, np.ndarray]:
    try:
        import torch
    except ImportError:
        raise UserError(f"{path}: reading .pth needs PyTorch: pip install torch") from None
    import pickle

    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise UserError(f"{path}: not a state dict of tensors: {str(error).splitlines()[0]}") from None
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping):
        raise UserError(f"{path}: not a state dict")
    return {name: value.numpy() for name, value in content.items() if isinstance(value, torch.Tensor)}


def to_ours(arrays: Mapping[str, np.ndarray], shapes: Shapes) -> dict[str, np.ndarray]:
    """Those arrays that a detector with arrays of `shapes` has, under our names and in our layout.

    Names are MMDetection's, or those of a ResNet alone (torchvision). An array of another shape (another number
    of classes, say) is left out.
    """
    bare = ("conv1.", "bn1.", "layer1.", "layer2.", "layer3.", "layer4.")
    arrays = {f"backbone.{n}" if n.startswith(bare) else n: v for n, v in arrays.items()}
    found = {}
    for name in shapes:
        value = arrays.get(torch_name(name))
        if value is not None and value.shape == torch_shape(name, shapes):
            found[name] = np.ascontiguousarray(from_torch(name, value, shapes))
    return found
