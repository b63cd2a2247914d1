"""One training run of a table: its config, its workdir, whether it is finished, and running it."""

import dataclasses
import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from c2am_jax.config import load_experiment, parse_overrides, with_overrides
from c2am_jax.data.datasets import open_dataset
from c2am_jax.data.glyphs import GlyphSettings
from c2am_jax.data.glyphs_lvis import LvisGlyphSettings
from c2am_jax.data.pipeline import epoch_length
from c2am_jax.data.prepared import is_prepared
from c2am_jax.errors import UserError
from c2am_jax.experiment import Experiment, flat
from c2am_jax.training.ownership import refuse_living_owner
from c2am_jax.training.schedule import Schedule

# Images with annotations; used before a set is prepared, and exact to a few steps (images that are too small drop out).
TRAIN_IMAGES = {
    "lvis_v1": 99_388,
    "lvis_v05": 56_740,
    "glyphs": GlyphSettings.train_images,
    "glyphs_lvis": LvisGlyphSettings.train_images,
}
TRAIN = ("-m", "c2am_jax.train")


@dataclasses.dataclass(frozen=True)
class PlannedRun:
    """A row with a seed.

    Attributes:
      argument: of train.py's ``--config``.
      overrides: config keys and values, the row's and the user's and the seed.
      workdir: where it trains; runs that train the same share one, whatever table asks for them.
      first: the run whose last checkpoint it starts from.
    """

    argument: str
    overrides: Mapping[str, Any]
    workdir: Path
    first: "PlannedRun | None" = None

    def experiment(self) -> Experiment:
        """What train.py will see. Raises UserError: no such file or key, or a wrong value."""
        return with_overrides(load_experiment(self.argument), self.overrides)

    def command(self) -> list[str]:
        """The command line that trains this run."""
        given = [f"--config.{key}={value}" for key, value in self.overrides.items()]
        return [sys.executable, *TRAIN, f"--config={self.argument}", f"--workdir={self.workdir}", *given]

    def last_step(self) -> int:
        """Steps of the whole run; counted on the prepared data set, else on the published number of images."""
        experiment = self.experiment()
        schedule, data = experiment.train, experiment.data
        if schedule.steps > 0:
            return schedule.steps
        if is_prepared(f"{data.name}_train", data.dir):
            return Schedule(schedule, epoch_length(open_dataset(data, "train"), data, schedule.batch_size)).length
        return Schedule(schedule, -(-TRAIN_IMAGES[data.name] // schedule.batch_size)).length

    def done_steps(self) -> int:
        """Step of the newest checkpoint, 0 without one."""
        steps = [int(p.name) for p in self.workdir.glob("checkpoints/*") if p.name.isdigit()]
        return max(steps, default=0)

    def metrics(self) -> dict[str, float] | None:
        """The evaluation after the last step, if it is there and the workdir's config is the planned one."""
        file, config = self.workdir / "eval" / str(self.last_step()) / "metrics.json", self.workdir / "config.json"
        if not (file.is_file() and config.is_file()):
            return None
        try:
            if Experiment.from_dict(json.loads(config.read_text())) != self.experiment():
                return None
            return json.loads(file.read_text())
        except ValueError:
            return None  # half-written (the run was killed there), or of another version: training tells

    def seconds_per_step(self) -> float | None:
        """Median over the log, None without one; the first line's steps are few, and evaluations have none."""
        file = self.workdir / "metrics.jsonl"
        lines = file.read_text().splitlines() if file.is_file() else []
        values = [json.loads(line) for line in lines[1:] if line.endswith("}")]
        rates = [line["images_per_sec"] for line in values if "images_per_sec" in line]
        return float(self.experiment().train.batch_size / np.median(rates)) if rates else None

    def execute(self, devices: str | None = None) -> int:
        """Train, or resume; output is appended to ``train.log`` of the workdir. Returns the exit status.

        Raises:
          UserError: another process trains there, one that outlived a killed table command, say.
        """
        refuse_living_owner(self.workdir)
        self.workdir.mkdir(parents=True, exist_ok=True)
        environment = os.environ | ({"CUDA_VISIBLE_DEVICES": devices} if devices is not None else {})
        with (self.workdir / "train.log").open("a") as log:
            child = subprocess.Popen(self.command(), stdout=log, stderr=subprocess.STDOUT, env=environment)
            try:
                return child.wait()
            finally:
                if child.poll() is None:  # this process was asked to stop: train.py saves its state and leaves
                    child.terminate()
                    child.wait()


def plan(
    argument: str,
    row: Mapping[str, Any],
    user: Mapping[str, Any],
    seed: int,
    out: Path,
    first: PlannedRun | None = None,
) -> PlannedRun:
    """The run of a row, from the weights of `first` if there is one; `user` wins over `row`.

    Overrides that say what the config says anyway are dropped, so equal runs have equal names.

    Raises:
      UserError: a key or value that the config does not know.
    """
    experiment = load_experiment(argument)
    plain = flat(experiment.as_json())
    with_overrides(experiment, {**row, **user})
    row = {key: value for key, value in row.items() if plain[key] != value}
    user = {key: value for key, value in user.items() if plain[key] != value}
    parts = [plain["name"], *(f"{key.split('.')[-1]}={value}" for key, value in sorted(row.items()))]
    start = {}
    if first is not None:
        parts.append(f"after_{first.experiment().name}")
        start = {"train.init": str(first.workdir)}
    if user:  # paths and long lists have no place in a folder's name
        parts.append(hashlib.sha256(json.dumps(user, sort_keys=True).encode()).hexdigest()[:8])
    folder = re.sub(r"[^\w=.+-]", "_", "-".join([*parts, f"seed{seed}"]))
    return PlannedRun(argument, {**row, **user, **start, "train.seed": seed}, out / folder, first)


def row_overrides(texts: Sequence[str]) -> dict[str, Any]:
    """`config.parse_overrides`. Raises UserError for the seed too, which ``--seeds`` sets."""
    found = parse_overrides(texts)
    if "train.seed" in found:
        raise UserError("--override train.seed: seeds come from --seeds")
    return found
