"""A trace of a few training steps, to be seen in TensorBoard, XProf or Perfetto."""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from c2am_jax.storage import worked_on

_LOG = logging.getLogger(__name__)
SKIPPED = 2  # steps of a run before the trace: compilation, and the first step after it


class StepTrace(contextlib.AbstractContextManager["StepTrace"]):
    """Traces `steps` training steps into `folder`, from the third step of this run on; 0 steps: nothing.

    The detector's parts carry names (`jax.named_scope`), which `python -m benchmarks.train_step --parts DIR` adds up.
    """

    def __init__(self, folder: Path, steps: int, start: int):
        """`start` is the first step of this run, which after a restart is not 0."""
        self._folder, self._first, self._stop = folder, start + SKIPPED, start + SKIPPED + steps
        self._running: contextlib.ExitStack | None = None

    def __exit__(self, *_: Any) -> None:
        """A run that ends inside the traced steps still has its trace."""
        if self._running:
            self._end()

    @contextlib.contextmanager
    def step(self, number: int) -> Iterator[None]:
        """A context around training step `number`; the trace starts and ends with the steps whose turn it is."""
        if number == self._first < self._stop:
            self._running = contextlib.ExitStack()
            jax.profiler.start_trace(str(self._running.enter_context(worked_on(self._folder))))
        with jax.profiler.StepTraceAnnotation("train", step_num=number):
            yield

    def taken(self, number: int, results: Any) -> None:
        """After step `number`, whose `results` may still be on their way."""
        if self._running and number + 1 == self._stop:
            jax.block_until_ready(results)
            self._end()

    def _end(self) -> None:
        jax.profiler.stop_trace()
        running, self._running = self._running, None
        if running is not None:
            running.close()
        _LOG.info("trace written: tensorboard --logdir %s", self._folder)
