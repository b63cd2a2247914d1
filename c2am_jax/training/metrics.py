"""Where numbers of a run go: metrics.jsonl and TensorBoard event files."""

import contextlib
import io
import json
import logging
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tensorboardX import SummaryWriter
from tensorboardX.proto.summary_pb2 import Summary

from c2am_jax.files import as_path, is_remote, replace_text
from c2am_jax.storage import Mirror, StorageError

_LOG = logging.getLogger(__name__)
FILE = "metrics.jsonl"
EVALUATION = "eval/"  # in front of the names of an evaluation's metrics
FLUSH_S = 10  # after which an event is on disk
_RGB = 3  # the colour space, in an event file


def means(steps: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The mean of each scalar over the steps that have it as a finite number; none for a name without any.

    Args:
      steps: of each, scalars by name.
    """
    found: dict[str, list[float]] = {}
    for values in steps:
        for name, value in values.items():
            number = float(value)
            if math.isfinite(number):
                found.setdefault(name, []).append(number)
    return {name: float(np.mean(numbers)) for name, numbers in found.items()}


class MetricWriter(contextlib.AbstractContextManager["MetricWriter"]):
    """Writes scalars of a step to ``metrics.jsonl`` (one object a line) and to event files in `workdir`.

    Those of a workdir in a bucket grow in a local folder, `folder`, and go to the bucket at each `publish`. A context
    manager, which publishes the last lines.
    """

    def __init__(self, workdir: Path, *, start_step: int = 0):
        """What is behind `start_step` comes from a run that is being repeated: dropped, by TensorBoard too."""
        self._mirror = Mirror(workdir) if is_remote(workdir) else None
        self.folder = self._mirror.folder if self._mirror else as_path(workdir)
        if self._mirror:
            self._mirror.fetch(FILE)  # another machine may have gone on meanwhile
        self.path = self.folder / FILE
        self._evaluated: set[str] = set()
        if self.path.exists():
            kept = [line for line in self.path.read_text().splitlines() if _step_of(line) <= start_step]
            replace_text(self.path, "".join(f"{line}\n" for line in kept))
            self._evaluated = {line for line in kept if f'"{EVALUATION}' in line}
        self._events = SummaryWriter(
            str(self.folder),
            # From step 0 on too: TensorBoard drops steps at the second mark of a start in a folder, never at the first.
            purge_step=start_step + 1,
            flush_secs=FLUSH_S,
            # Names count seconds: a second start within one would write over the first one's file.
            filename_suffix=f".{time.time_ns()}",
        )

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Add the scalars of `step` to both places; what is not finite is left out, for JSON has no such number."""
        self._add(step, _finite(values))
        self._events.flush()

    def write_evaluation(self, step: int, metrics: Mapping[str, float], pictures: Path | None = None) -> None:
        """Add the metrics of an evaluation after `step`, as "eval/NAME", in a line of their own.

        One that is there already with the same numbers is not added again: a finished run that is started again
        evaluates its last step.

        Args:
          step: of the detector.
          metrics: from `evaluate`; those of -1, which have nothing to count, are left out.
          pictures: a JPEG that goes to TensorBoard, if it exists.
        """
        numbers = {f"{EVALUATION}{name}": value for name, value in _finite(metrics).items() if value != -1}
        if not numbers or _line(step, numbers) in self._evaluated:
            return
        self._add(step, numbers)
        if pictures is not None and pictures.is_file():
            encoded = pictures.read_bytes()
            with Image.open(io.BytesIO(encoded)) as picture:
                width, height = picture.size
            # As it is: SummaryWriter.add_image would make a PNG of it, several times as large.
            image = Summary.Image(height=height, width=width, colorspace=_RGB, encoded_image_string=encoded)
            summary = Summary(value=[Summary.Value(tag=f"{EVALUATION}{pictures.stem}", image=image)])
            self._events.file_writer.add_summary(summary, step)
        self._events.flush()

    def _add(self, step: int, numbers: Mapping[str, float]) -> None:
        with self.path.open("a") as file:
            file.write(_line(step, numbers) + "\n")
        for name, value in numbers.items():
            self._events.add_scalar(name, value, step)

    def publish(self) -> None:
        """Send what is new to a workdir in a bucket. If that fails it is logged, and goes with the next time."""
        if self._mirror is None:
            return
        self._events.flush()
        try:
            self._mirror.publish()
        except StorageError as error:
            _LOG.error("metrics wait in %s until the bucket takes them: %s", self.folder, error)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """`close`; if another error is on its way, its own is logged."""
        try:
            self.close()
        except StorageError as error:
            if kind is None:
                raise
            _LOG.error("%s", error)

    def close(self) -> None:
        """Close the event file and publish the last lines. Raises StorageError if they do not reach the bucket."""
        self._events.close()
        try:
            if self._mirror is not None:
                self._mirror.publish()
        except StorageError as error:
            raise StorageError(
                f"{error}; the last metrics are in {self.folder}: copy them to the workdir before you resume"
            ) from None


def _finite(values: Mapping[str, Any]) -> dict[str, float]:
    numbers = {name: float(value) for name, value in values.items()}
    return {name: value for name, value in numbers.items() if math.isfinite(value)}


def _line(step: int, numbers: Mapping[str, float]) -> str:
    return json.dumps({"step": step, **numbers})


def _step_of(line: str) -> float:
    """Step of a line; a line cut off by a kill counts as behind everything."""
    try:
        return json.loads(line)["step"]
    except (json.JSONDecodeError, KeyError, TypeError):
        return float("inf")
