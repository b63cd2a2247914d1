"""Where numbers of a run go: metrics.jsonl and TensorBoard event files."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter

from c2am_jax.files import replace_text


class MetricWriter:
    """Writes scalars of a step to ``metrics.jsonl`` (one object a line) and to event files in `workdir`."""

    def __init__(self, workdir: Path, *, start_step: int = 0):
        """Lines behind `start_step` come from a run that is being repeated and are dropped."""
        self.path = Path(workdir) / "metrics.jsonl"
        if self.path.exists():
            kept = [line for line in self.path.read_text().splitlines() if _step_of(line) <= start_step]
            replace_text(self.path, "".join(f"{line}\n" for line in kept))
        self._events = SummaryWriter(str(workdir), purge_step=start_step + 1 if start_step else None)

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Add the scalars of `step` to both places; they are on disk when this returns."""
        numbers = {name: float(value) for name, value in values.items()}
        with self.path.open("a") as file:
            file.write(json.dumps({"step": step, **numbers}) + "\n")
        for name, value in numbers.items():
            self._events.add_scalar(name, value, step)
        self._events.flush()

    def close(self) -> None:
        """Close the event file."""
        self._events.close()


def _step_of(line: str) -> float:
    """Step of a line; a line cut off by a kill counts as behind everything."""
    try:
        return json.loads(line)["step"]
    except (json.JSONDecodeError, KeyError, TypeError):
        return float("inf")
