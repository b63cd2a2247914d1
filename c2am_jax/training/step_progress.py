"""What a user sees of a training while it runs: a bar on a terminal, elsewhere a line every so often, on stderr."""

import contextlib
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TextIO, TypeVar

import jax
from tqdm import tqdm

from c2am_jax.progress import EVERY_S, per_second, spoken

SHOWN_AP = ("bbox/AP", "segm/AP")  # in the line after an evaluation, in per cent
T, R = TypeVar("T"), TypeVar("R")


class _Mark(NamedTuple):
    steps: int  # that count, so far
    seconds: float  # of them


class Progress(contextlib.AbstractContextManager["Progress"]):
    """Steps, their rate and the time that is left, for the loop to tell what happens; a context manager.

    The rate counts training only: the first step of each padded shape, which compiles, and what happens inside `pause`
    are left out. It is taken at log lines, where the host waits for the devices.
    """

    def __init__(
        self,
        start: int,
        last_step: int,
        batch_size: int,
        *,
        shown: bool = True,
        every_s: float = EVERY_S,
        file: TextIO | None = None,
        now: Callable[[], float] = time.perf_counter,
    ):
        """Step `start` is done, the one that training starts or resumes from.

        Args:
          start, last_step: steps that are done now and at the end.
          batch_size: global.
          shown: False for a process that leaves it to another one.
          every_s: seconds at least between two lines where `file` is no terminal.
          file: default stderr.
          now: a clock, in seconds.
        """
        self._file, self._now, self._every = file or sys.stderr, now, every_s
        self._last_step, self._batch_size = last_step, batch_size
        terminal = self._file.isatty()
        self._shown, self._lines = shown, shown and not terminal
        self._bar = tqdm(
            initial=start, total=last_step, desc="train", file=self._file, disable=not (shown and terminal)
        )
        self._buckets: set[tuple[int, int]] = set()
        self._left_out = 0.0
        self._logged = self._said = self._mark(start)
        self._said_at = -math.inf

    def __exit__(self, *error: Any) -> None:
        """Close the bar."""
        self._bar.close()

    def _mark(self, done: int) -> _Mark:
        return _Mark(done - len(self._buckets), self._now() - self._left_out)

    def say(self, text: str) -> None:
        """A line of its own; on a terminal above the bar."""
        if self._shown:
            tqdm.write(text, file=self._file)
            self._file.flush()

    @contextlib.contextmanager
    def pause(self, pending: Any) -> Iterator[None]:
        """A context around work that is no training; arrays `pending` of the steps before it are waited for first."""
        jax.block_until_ready(pending)
        begun = self._now()
        try:
            yield
        finally:
            self._left_out += self._now() - begun
            self._bar.unpause()

    def compiles(self, bucket: Any) -> bool:
        """Whether a `call` with images padded to `bucket` (H, W) is the first of that shape."""
        return bucket not in self._buckets

    def call(self, step_function: Callable[[T, Any, tuple[int, int]], R], state: T, batch: Any, bucket: Any) -> R:
        """``step_function(state, batch, bucket)``; the first of each padded shape compiles, which is said and timed."""
        if not self.compiles(bucket):
            return step_function(state, batch, bucket)
        height, width = bucket
        self.say(f"compiling the training step for images padded to {height}x{width} (height x width) ...")
        first = not self._buckets
        with self.pause(state):
            begun = self._now()
            result = jax.block_until_ready(step_function(state, batch, bucket))
            seconds = self._now() - begun
        self._buckets.add(bucket)
        self.say(f"... compiled, and a first step done, in {spoken(seconds)}")
        if first:  # before it workers started and the first images were read
            self._logged = self._said = self._logged._replace(seconds=self._now() - self._left_out)
        return result

    @contextlib.contextmanager
    def evaluation(self, step: int, pending: Any) -> Iterator[Callable[[Mapping[str, float]], None]]:
        """A `pause` around the evaluation after `step`, which is said; what it returns takes the metrics."""
        found: dict[str, float] = {}
        if self._lines:
            self.say(f"evaluating step {step} ...")
        with self.pause(pending):
            begun = self._now()
            yield found.update
        if self._lines:
            values = [f"{name} {100 * found[name]:.1f}" for name in SHOWN_AP if found.get(name, -1) >= 0]
            self.say("  ".join([f"... evaluated in {spoken(self._now() - begun)}", *values]))

    def step(self) -> None:
        """One more step was given to the devices."""
        self._bar.update()

    def images_per_sec(self, done: int) -> float | None:
        """Rate since this was asked last; the devices have finished step `done`. None: no step counts."""
        before, self._logged = self._logged, self._mark(done)
        return self._rate(before, self._logged)

    def _rate(self, before: _Mark, after: _Mark) -> float | None:
        steps, seconds = after.steps - before.steps, after.seconds - before.seconds
        return steps * self._batch_size / seconds if steps > 0 and seconds > 0 else None

    def logged(self, done: int, values: Mapping[str, float]) -> None:
        """Show "loss" and "lr" of what was logged of step `done`."""
        self._bar.set_postfix(loss=f"{values['loss']:.3f}", lr=f"{values['lr']:.2e}")
        if not self._lines or (done < self._last_step and self._now() - self._said_at < self._every):
            return
        mark = self._mark(done)
        rate = self._rate(self._said, mark)
        self._said, self._said_at = mark, self._now()
        parts = [f"step {done}/{self._last_step}", f"loss {values['loss']:.3f}", f"lr {values['lr']:.2g}"]
        if rate is not None:
            parts.append(per_second(rate, "image"))
            if done < self._last_step:
                parts.append(f"ETA {spoken((self._last_step - done) * self._batch_size / rate)}")
        self.say("  ".join(parts))
