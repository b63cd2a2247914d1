"""Initial weights from a file or another run (`config.train.init`)."""

import logging
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from orbax.checkpoint import v1 as ocp

from c2am_jax.errors import UserError
from c2am_jax.interop.weights import read_weights, to_ours
from c2am_jax.models.functional import Arrays

_LOG = logging.getLogger(__name__)


def load_initial_weights(path: str, params: Arrays, rest: Arrays) -> tuple[Arrays, Arrays]:
    """Replace every array that the source has, by name and shape; the others stay random, and are logged.

    Args:
      path: ``.pth`` or ``.npz`` with the PyTorch reference's names (a whole detector, or a torchvision ResNet), or the
        workdir of another run, whose newest checkpoint is taken.
      params, rest: the arrays of the new detector.

    Raises:
      UserError: no such file, or nothing in it fits.
    """
    if not Path(path).exists():
        raise UserError(f"config.train.init: no file or workdir {path}")
    shapes = {name: value.shape for name, value in (params | rest).items()}
    found = _of_workdir(Path(path)) if Path(path).is_dir() else to_ours(read_weights(path), shapes)
    fitting = {n: jnp.asarray(v) for n, v in found.items() if n in shapes and v.shape == shapes[n]}
    if not fitting:
        raise UserError(f"config.train.init: {path} has no array that fits this detector")
    missing = sorted(set(shapes) - set(fitting))
    _LOG.info("%s: %d arrays taken, %d start random: %s", path, len(fitting), len(missing), ", ".join(missing))
    return {n: fitting.get(n, v) for n, v in params.items()}, {n: fitting.get(n, v) for n, v in rest.items()}


def _of_workdir(workdir: Path) -> dict[str, np.ndarray]:
    with ocp.training.Checkpointer(str((workdir / "checkpoints").absolute())) as checkpointer:
        if checkpointer.latest is None:
            raise UserError(f"config.train.init: {workdir} holds no checkpoint")
        one_device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        abstract = jax.tree.map(
            lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=one_device),
            checkpointer.metadata(checkpointer.latest.step).metadata,
        )
        state = checkpointer.load(checkpointer.latest.step, abstract)
    return {name: np.asarray(value) for part in ("params", "rest") for name, value in state[part].items()}
