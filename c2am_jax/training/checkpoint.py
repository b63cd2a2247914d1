"""Orbax checkpoints of a workdir: asynchronous, the newest N are kept, each with its config."""

import json
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict
from orbax.checkpoint import v1 as ocp

from c2am_jax.errors import UserError
from c2am_jax.training.state import TrainState


class Checkpoints:
    """The folder `checkpoints` of a workdir; use as a context manager, which waits for the last save."""

    def __init__(self, workdir: Path, *, keep: int = 3):
        """`keep`: how many of the newest stay."""
        self.folder = Path(workdir).absolute() / "checkpoints"
        self._checkpointer = ocp.training.Checkpointer(
            self.folder,
            save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),
            preservation_policy=ocp.training.preservation_policies.LatestN(keep),
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
        """Start saving `state` as of `step`; goes on in the background."""
        if step not in self.steps:
            self._checkpointer.save_async(step, state, force=True)

    def load(self, like: TrainState, step: int | None = None) -> TrainState:
        """The state of `step` (default: the newest), with the shardings of `like`.

        Raises:
          UserError: there is no such checkpoint (the text lists those there are), or its arrays are of another
            detector.
        """
        steps = self.steps
        if not steps or (step is not None and step not in steps):
            there = ", ".join(map(str, steps)) or "none at all"
            wanted = "a checkpoint" if step is None else f"a checkpoint of step {step}"
            raise UserError(f"{self.folder}: no {wanted}; there are: {there}")
        abstract = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=a.sharding), like)
        try:
            return self._checkpointer.load(steps[-1] if step is None else step, abstract)
        except (KeyError, ValueError) as error:
            raise UserError(f"{self.folder}: the checkpoint does not fit this config: {error}") from None


# Parts of a config that a workdir's checkpoints depend on; schedules may change between runs.
FIXED = ("model", "loss", "data.name")


def check_config(workdir: Path, config: ConfigDict, *, write: bool = True) -> None:
    """Compare with the `config.json` of a workdir that has one, then write it unless told not to.

    Raises:
      UserError: the model, loss or data set differ; the text lists the keys.
    """
    path = Path(workdir) / "config.json"
    new = json.loads(config.to_json())
    if path.is_file():
        old = json.loads(path.read_text())
        differing = [
            f"{key}: {a!r} there, {b!r} now"
            for key, (a, b) in _differences(old, new).items()
            if key.startswith(FIXED)
        ]
        if differing:
            raise UserError(f"{workdir} holds a run of another config ({'; '.join(differing)}): take another --workdir")
    if not write:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(new, indent=2))


def _differences(old: Any, new: Any, prefix: str = "") -> dict[str, tuple[Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        found = {}
        for key in sorted(set(old) | set(new)):
            found |= _differences(old.get(key), new.get(key), f"{prefix}.{key}" if prefix else key)
        return found
    return {} if old == new else {prefix: (old, new)}
