"""Initial weights from a file or another run (`config.train.init`)."""

import logging
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from orbax.checkpoint import v1 as ocp

from c2am_jax.errors import UserError
from c2am_jax.interop.names import state_dict
from c2am_jax.interop.weights import fit, read_weights, to_reference_names
from c2am_jax.models.functional import Arrays

_LOG = logging.getLogger(__name__)


def load_initial_weights(
    path: str, params: Arrays, rest: Arrays, *, reset_classifier: bool = False
) -> tuple[Arrays, Arrays]:
    """Replace every array that the source has; the others stay random, and are logged.

    Args:
      path: a file that `interop.weights` reads (a whole detector, or a ResNet alone), or the workdir of another run,
        whose newest checkpoint is taken.
      params, rest: the arrays of the new detector.
      reset_classifier: classifiers of another class count start random instead of being an error.

    Raises:
      UserError: no such file, nothing in it fits, or it is of another model.
    """
    if not Path(path).exists():
        raise UserError(f"config.train.init: no file or workdir {path}")
    shapes = {name: tuple(value.shape) for name, value in (params | rest).items()}
    if Path(path).is_dir():
        found = state_dict(weights_of_workdir(Path(path))[0])
    else:
        found = to_reference_names(read_weights(path), source=path)
    fitted = fit(found, shapes, source=path, reset_classifier=reset_classifier)
    _LOG.info("%s: %s", path, fitted.summary())
    take = lambda own: {n: jnp.asarray(fitted.arrays[n]) if n in fitted.arrays else v for n, v in own.items()}  # noqa: E731
    return take(params), take(rest)


def weights_of_workdir(workdir: Path, step: int | None = None) -> tuple[dict[str, np.ndarray], int]:
    """Arrays by our names of a checkpoint (default: the newest), and its step.

    Raises:
      UserError: there is no such checkpoint.
    """
    with ocp.training.Checkpointer(str((workdir / "checkpoints").absolute())) as checkpointer:
        steps = sorted(checkpoint.step for checkpoint in checkpointer.checkpoints)
        if not steps or (step is not None and step not in steps):
            raise UserError(
                f"{workdir} has no such checkpoint; there are: {', '.join(map(str, steps)) or 'none at all'}"
            )
        step = steps[-1] if step is None else step
        one_device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        abstract = jax.tree.map(
            lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=one_device), checkpointer.metadata(step).metadata
        )
        state = checkpointer.load(step, abstract)
    return {name: np.asarray(value) for part in ("params", "rest") for name, value in state[part].items()}, step
