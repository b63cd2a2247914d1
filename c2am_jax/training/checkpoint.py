"""Orbax checkpoints of a workdir: asynchronous, atomic, the newest N are kept, each with its config and versions.

A finished checkpoint gets checksums of its files; one that no longer fits them is set aside, and the one before counts.
"""

import contextlib
import importlib.metadata
import json
import logging
import re
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from orbax.checkpoint import v1 as ocp

from c2am_jax.checks import WrongSetting
from c2am_jax.errors import BEST, UserError
from c2am_jax.experiment import Experiment, flat
from c2am_jax.files import as_path, is_remote, replace_text
from c2am_jax.storage import StorageError, delete, move, objects, remote_errors

State = TypeVar("State")  # a tree of arrays
_LOG = logging.getLogger(__name__)
NO_CHECKPOINT = "no checkpoint yet: a run has one after its first save (config.train.checkpoint_every steps)"
COMMITTED = "commit_success.txt"  # what Orbax writes last into a checkpoint in a bucket (its CommitFileTemporaryPath)
_UNREACHED = re.compile("UNAVAILABLE|DEADLINE_EXCEEDED|PERMISSION_DENIED|UNAUTHENTICATED")
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")

# What the arrays of a checkpoint depend on. Schedules may change between runs, and so may what only tests read.
FIXED = ("model.", "loss.", "data.name", "train.trainable")
FREE = ("model.test.", "model.rpn.pre_nms_test", "model.rpn.post_nms_test", "model.backbone.remat")


class Checkpoints(contextlib.AbstractContextManager["Checkpoints"]):
    """A folder of checkpoints in a workdir; use as a context manager, which waits for the last save."""

    def __init__(
        self, workdir: Path, *, keep: int = 3, experiment: Experiment | None = None, name: str = "checkpoints"
    ):
        """Open the folder `name`.

        Args:
          workdir: of the run.
          keep: how many of the newest stay.
          experiment: stored with each one, beside the packages' versions; without it the folder is only read.
          name: of the folder.
        """
        place = as_path(workdir if is_remote(workdir) else Path(workdir).absolute())
        self.folder = place / name
        self._checksums = place / f"{name}_checksums"
        self._damaged = place / f"{name}_damaged"
        self._writes = experiment is not None
        if self._writes and is_remote(place) and jax.process_index() == 0:
            with remote_errors(place):
                for left in [path for path in self.folder.glob("*") if was_cut_off(path)]:
                    delete(left)
        versions = {name: importlib.metadata.version(name) for name in PACKAGES}
        self._metadata = {"versions": versions, "config": experiment.as_json() if experiment else {}}
        self._checkpointer = ocp.training.Checkpointer(
            str(self.folder),
            save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),  # pyright: ignore[reportArgumentType]
            preservation_policy=ocp.training.preservation_policies.LatestN(keep),  # pyright: ignore[reportArgumentType]
        )

    def __exit__(self, kind: type[BaseException] | None = None, *error: Any) -> None:
        """Wait for the last save. Raises UserError if it failed, unless another error is on its way."""
        try:
            with self._storage():
                self._checkpointer.close()
                self._seal()
        except UserError as failure:
            if kind is None:
                raise
            _LOG.error("%s", failure)

    @contextlib.contextmanager
    def _storage(self) -> Iterator[None]:
        """What storage and Orbax raise becomes one line."""
        try:
            with remote_errors(self.folder):
                yield
        except (OSError, ValueError, RuntimeError, StorageError) as error:
            saved = ", ".join(map(str, self.steps)) or "none"
            raise UserError(
                f"{self.folder}: a checkpoint could not be saved ({str(error).splitlines()[0]}); there are: {saved}. "
                "When the storage works again, run the same command again to resume from the newest"
            ) from error

    @property
    def steps(self) -> list[int]:
        """Steps that have a finished checkpoint, ascending."""
        return sorted(c.step for c in self._checkpointer.checkpoints)

    def save(self, state: Any, step: int, progress: Mapping[str, int] | None = None) -> None:
        """Start saving `state` as of `step`; the save runs in the background, and `state` may be donated meanwhile.

        `progress`, plain numbers, is kept with it: where the run is in its schedule.
        """
        if step in self.steps:
            return
        with self._storage():
            self._checkpointer.wait()
            self._seal()
            kept = self._metadata | {"progress": dict(progress or {})}
            self._checkpointer.save_async(step, state, force=True, custom_metadata=kept)

    def metadata(self, step: int) -> Any:
        """The "config", "versions" and "progress" that the checkpoint of `step` was saved with."""
        return self._checkpointer.metadata(step).custom_metadata

    def load(self, like: State, step: int | None = None) -> State:
        """The state of `step` (default: the newest that is whole), with the shardings of `like`.

        A damaged newest one is logged and the one before is taken; while training it is moved to the folder
        ``checkpoints_damaged``, so that its step can be saved again.

        Raises:
          UserError: there is no such checkpoint (the text lists those there are), the one asked for or all of them are
            damaged, or the arrays are of another detector.
        """
        damaged = []
        for candidate in [self._known(step)] if step is not None else self.steps[::-1]:
            problem = self._problem(candidate)
            if problem is None:
                try:
                    return self._load(like, candidate)
                except (KeyError, ValueError) as error:
                    if self._sealed(candidate):
                        raise UserError(f"{self.folder}: the checkpoint does not fit this config: {error}") from None
                    problem = str(error)
                except OSError as error:
                    problem = str(error)
            if step is not None:
                raise self._refusal(candidate, problem)
            damaged.append(f"{candidate} ({problem.splitlines()[0]})")
            _LOG.error("checkpoint %s is damaged (%s)", self.folder / str(candidate), problem.splitlines()[0])
            self._set_aside(candidate)
        if damaged:
            raise UserError(f"{self.folder}: no checkpoint is whole; damaged: {', '.join(damaged)}")
        raise UserError(f"{self.folder}: {NO_CHECKPOINT}")

    def load_arrays(self, step: int | None = None) -> tuple[dict[str, np.ndarray], int]:
        """The detector's arrays by name, whatever detector it is, of `step` (default: the newest), and that step.

        Raises:
          UserError: there is no such checkpoint, or it is damaged; no other one stands in for it.
        """
        step = self._known(step)
        problem, state = self._problem(step), {}
        if problem is None:
            device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
            try:
                saved = self._checkpointer.metadata(step).metadata
                abstract = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=device), saved)
                state = self._checkpointer.load(step, abstract)
                return {n: np.asarray(v) for part in ("params", "rest") for n, v in state[part].items()}, step
            except (KeyError, ValueError, OSError) as error:
                problem = str(error)
        raise self._refusal(step, problem)

    def _known(self, step: int | None) -> int:
        """`step`, or the newest. Raises UserError if there is none."""
        there = self.steps
        if not there or (step is not None and step not in there):
            wanted = "checkpoint" if step is None else f"checkpoint of step {step}"
            raise UserError(f"{self.folder}: no {wanted}; there are: {', '.join(map(str, there)) or 'none at all'}")
        return there[-1] if step is None else step

    def _refusal(self, step: int, problem: str) -> UserError:
        there, text = ", ".join(map(str, self.steps)), problem.splitlines()[0]
        return UserError(f"{self.folder / str(step)} is damaged ({text}); checkpoints there: {there}")

    def _load(self, like: State, step: int) -> State:
        abstract = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=a.sharding), like)
        try:
            return self._checkpointer.load(step, abstract)
        except ValueError as error:  # as tensorstore says it of a bucket
            if is_remote(self.folder) and _UNREACHED.search(str(error)):
                raise StorageError(f"{self.folder / str(step)}: {str(error).splitlines()[0]}") from None
            raise

    def _seal(self) -> None:
        """Write checksums of finished checkpoints that have none, and drop those of deleted ones."""
        if not self._writes or jax.process_index() != 0:
            return
        present = {f"{step}.json": self.folder / str(step) for step in saved_steps(self.folder)}
        for name, path in present.items():
            if not (self._checksums / name).exists():
                self._checksums.mkdir(exist_ok=True)
                try:
                    replace_text(self._checksums / name, json.dumps(_checksums(path)))
                except FileNotFoundError:  # an old one that is being deleted
                    continue
        for old in self._checksums.glob("*.json"):
            if old.name not in present:
                old.unlink()

    def _sealed(self, step: int) -> bool:
        return (self._checksums / f"{step}.json").exists()

    def _problem(self, step: int) -> str | None:
        """What is wrong with the files of a checkpoint, the same on all hosts; None if nothing is known to be."""
        wrong = ""
        if jax.process_index() == 0 and self._sealed(step):
            found = _checksums(self.folder / str(step))
            try:
                expected = dict(json.loads((self._checksums / f"{step}.json").read_text()))
            except (ValueError, TypeError):
                wrong = f"{self._checksums.name}/{step}.json"
            else:
                wrong = next((name for name in sorted(expected | found) if expected.get(name) != found.get(name)), "")
        if jax.process_count() > 1:
            damaged = bool(multihost_utils.broadcast_one_to_all(np.array(bool(wrong))))
            wrong = wrong or ("a file" if damaged else "")
        return f"{wrong} differs from what was saved" if wrong else None

    def _set_aside(self, step: int) -> None:
        if not self._writes:
            return
        if jax.process_index() == 0:
            self._damaged.mkdir(exist_ok=True)
            target = self._damaged / f"{step}_{time.time_ns()}"
            source = self.folder / str(step)
            if is_remote(source):
                move(source, target)
            else:
                source.rename(target)
            (self._checksums / f"{step}.json").unlink(missing_ok=True)
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices(f"set aside {step}")
        self._checkpointer.reload()


class BestCheckpoint(contextlib.AbstractContextManager["BestCheckpoint"]):
    """The checkpoint with the best evaluation so far, in the folder ``best`` of a workdir; a context manager."""

    METRICS = ("segm/AP", "bbox/AP")  # the first that an evaluation has counts

    def __init__(self, workdir: Path, experiment: Experiment):
        """`experiment` is stored with it."""
        self._checkpoints = Checkpoints(workdir, keep=1, experiment=experiment, name="best")
        self._record = as_path(workdir) / "best.json"

    def __exit__(self, *error: Any) -> None:
        """Wait for the last save."""
        self._checkpoints.__exit__(*error)

    def offer(self, state: Any, step: int, results: Mapping[str, float]) -> None:
        """Save `state` of `step` if its evaluation is better than every one before."""
        value = next((results[name] for name in self.METRICS if name in results), None)
        if jax.process_count() > 1:
            value = float(multihost_utils.broadcast_one_to_all(np.float64(np.nan if value is None else value)))
        before = _read(self._record)["value"] if self._record.is_file() and self._checkpoints.steps else -np.inf
        if value is None or not value > before:
            return
        self._checkpoints.save(state, step)
        if jax.process_index() == 0:
            replace_text(self._record, json.dumps({"step": step, "value": value}))


def place_of(step: int | str | None) -> tuple[str, int | None]:
    """Where the checkpoint is that ``--step`` names: the folder in a workdir, and the number there, None the newest."""
    return (BEST, None) if isinstance(step, str) else ("checkpoints", step)


def saved_steps(folder: Path) -> list[int]:
    """Steps of the finished checkpoints in a folder of a workdir, ascending; none if it is not there."""
    if is_remote(folder):  # a save that was cut off has its final name, but not this file
        with remote_errors(folder):
            found = [path.parent for path in folder.glob(f"*/{COMMITTED}")]
    else:
        found = list(folder.glob("*"))
    return sorted(int(path.name) for path in found if path.name.isdigit())


def was_cut_off(checkpoint: Path) -> bool:
    """Whether a folder is what a save left that never ended. On a disk such a folder has another name."""
    sealed = checkpoint.parent.with_name(f"{checkpoint.parent.name}_checksums") / f"{checkpoint.name}.json"
    return (
        is_remote(checkpoint)
        and checkpoint.name.isdigit()
        and not (checkpoint / COMMITTED).is_file()
        and not sealed.is_file()
    )


def _checksums(folder: Path) -> dict[str, list[Any]]:
    """Size and checksum of every file below a folder, by its path: CRC-32, or what the bucket says."""
    if is_remote(folder):
        return {name: [about.size, about.crc32c] for name, about in objects(folder).items()}

    def crc(path: Path) -> int:
        value = 0
        with path.open("rb") as file:
            while block := file.read(1 << 22):
                value = zlib.crc32(block, value)
        return value

    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): [path.stat().st_size, crc(path)] for path in files}


def compare_config(workdir: Path, experiment: Experiment) -> list[str]:
    """Compare with the `config.json` of a workdir that holds checkpoints; returns what differs and may, for a log.

    Raises:
      UserError: the model, loss or data set differ; the text lists the keys.
    """
    path = as_path(workdir) / "config.json"
    if not path.is_file() or not saved_steps(as_path(workdir) / "checkpoints"):  # a run that never saved binds nobody
        return []
    refused, allowed = [], []
    before, after = flat(_as_written_now(_read(path))), flat(experiment.as_json())
    for key in (key for key in sorted({*before, *after}) if before.get(key) != after.get(key)):
        there, now = before.get(key), after.get(key)
        changed = bool(there or now)  # a key of newer versions is as good as an empty one
        fixed = changed and key.startswith(FIXED) and not key.startswith(FREE)
        (refused if fixed else allowed).append(f"{key}: {there!r} there, {now!r} now")
    if refused:
        raise UserError(f"{workdir} holds a run of another config ({'; '.join(refused)}): take another --workdir")
    return allowed


def write_config(workdir: Path, experiment: Experiment, changes: Sequence[str] = ()) -> None:
    """Write the `config.json` of a workdir; `changes`, of `compare_config`, are logged."""
    if changes:
        _LOG.info("%s resumes with another config: %s", workdir, "; ".join(changes))
    path = as_path(workdir) / "config.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_text(path, json.dumps(experiment.as_json(), indent=2))


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error}); checkpoints hold their config too") from None


def _as_written_now(tree: dict[str, Any]) -> dict[str, Any]:
    """The config of a run that may be older: settings that did not exist yet had their defaults."""
    try:
        return Experiment.from_dict(tree).as_json()
    except WrongSetting:
        return tree  # the comparison will name what is not known any more
