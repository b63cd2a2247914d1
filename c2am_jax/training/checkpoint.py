"""Orbax checkpoints of a workdir: asynchronous, the newest N are kept, each with its config and versions."""

import importlib.metadata
import json
import logging
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict
from orbax.checkpoint import v1 as ocp

from c2am_jax.errors import UserError
from c2am_jax.training.metrics import replace_text
from c2am_jax.training.state import TrainState

_LOG = logging.getLogger(__name__)
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")

# What the arrays of a checkpoint depend on. Schedules may change between runs, and so may what only tests read.
FIXED = ("model.", "loss.", "data.name")
FREE = ("model.test.", "model.rpn.pre_nms_test", "model.rpn.post_nms_test")


class Checkpoints:
    """The folder `checkpoints` of a workdir; use as a context manager, which waits for the last save."""

    def __init__(self, workdir: Path, *, keep: int = 3, config: ConfigDict | None = None):
        """`keep`: how many of the newest stay. `config`: stored with each one, beside the packages' versions."""
        self.folder = Path(workdir).absolute() / "checkpoints"
        versions = {name: importlib.metadata.version(name) for name in PACKAGES}
        self._metadata = {"versions": versions, "config": json.loads(config.to_json()) if config else {}}
        self._checkpointer = ocp.training.Checkpointer(
            str(self.folder),
            save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),  # pyright: ignore[reportArgumentType]
            preservation_policy=ocp.training.preservation_policies.LatestN(keep),  # pyright: ignore[reportArgumentType]
        )

    def __enter__(self) -> "Checkpoints":
        """Itself."""
        return self

    def __exit__(self, *error: Any) -> None:
        """Wait for the last save."""
        self._checkpointer.close()

    @property
    def steps(self) -> list[int]:
        """Steps that have a finished checkpoint, ascending."""
        return sorted(c.step for c in self._checkpointer.checkpoints)

    def save(self, state: TrainState, step: int) -> None:
        """Start saving `state` as of `step`; goes on in the background, and `state` may be donated meanwhile."""
        if step not in self.steps:
            self._checkpointer.save_async(step, state, force=True, custom_metadata=self._metadata)

    def metadata(self, step: int) -> Any:
        """The "config" and "versions" that the checkpoint of `step` was saved with."""
        return self._checkpointer.metadata(step).custom_metadata

    def load(self, like: TrainState, step: int | None = None) -> TrainState:
        """The state of `step` (default: the newest), with the shardings of `like`.

        Raises:
          UserError: there is no such checkpoint (the text lists those there are), or its arrays are of another
            detector.
        """
        steps = self.steps
        if not steps or (step is not None and step not in steps):
            there = ", ".join(map(str, steps)) or "none at all"
            wanted = "checkpoint" if step is None else f"checkpoint of step {step}"
            raise UserError(f"{self.folder}: no {wanted}; there are: {there}")
        abstract = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=a.sharding), like)
        try:
            return self._checkpointer.load(steps[-1] if step is None else step, abstract)
        except (KeyError, ValueError) as error:
            raise UserError(f"{self.folder}: the checkpoint does not fit this config: {error}") from None


def check_config(workdir: Path, config: ConfigDict, *, write: bool = True) -> None:
    """Compare with the `config.json` of a workdir that holds checkpoints, then write it unless told not to.

    Raises:
      UserError: the model, loss or data set differ; the text lists the keys. Other differences are logged.
    """
    path = Path(workdir) / "config.json"
    new = json.loads(config.to_json())
    trained = any(folder.name.isdigit() for folder in Path(workdir).glob("checkpoints/*"))
    if path.is_file() and trained:  # a run that never saved binds nobody
        refused, allowed = [], []
        for key, (there, now) in _differences(_read(path), new).items():
            fixed = key.startswith(FIXED) and not key.startswith(FREE)
            (refused if fixed else allowed).append(f"{key}: {there!r} there, {now!r} now")
        if refused:
            raise UserError(f"{workdir} holds a run of another config ({'; '.join(refused)}): take another --workdir")
        if allowed:
            _LOG.info("%s goes on with another config: %s", workdir, "; ".join(allowed))
    if write:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_text(path, json.dumps(new, indent=2))


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error}); checkpoints hold their config too") from None


def _differences(old: Any, new: Any, prefix: str = "") -> dict[str, tuple[Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        found = {}
        for key in sorted(set(old) | set(new)):
            found |= _differences(old.get(key), new.get(key), f"{prefix}.{key}" if prefix else key)
        return found
    return {} if old == new else {prefix: (old, new)}
