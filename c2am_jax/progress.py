"""How far a command is, on stderr: a bar on a terminal, elsewhere a plain line every so often.

A file or a batch system's log that holds a bar is one endless line; a log without either says nothing for hours.
"""

import contextlib
import sys
import time
from collections.abc import Callable
from typing import TextIO

from tqdm import tqdm

EVERY_S = 30.0  # at least, between two lines


def spoken(seconds: float) -> str:
    """A duration in the unit that fits: "40 s", "9 min", "2 h 05 min", "3 d 4 h"."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def per_second(rate: float, unit: str) -> str:
    """A rate in three digits or whole numbers: "0.412 images/s", "1234 images/s", "12 MB/s"."""
    number = f"{rate:.0f}" if rate >= 100 else f"{rate:.3g}"
    return f"{number} {unit}s/s" if unit.islower() and number != "1" else f"{number} {unit}/s"


class Counter(contextlib.AbstractContextManager["Counter"]):
    """Counts what is done; a context manager."""

    def __init__(
        self,
        total: int | None,
        what: str,
        unit: str,
        *,
        initial: int = 0,
        shown: bool = True,
        every_s: float = EVERY_S,
        file: TextIO | None = None,
        now: Callable[[], float] = time.perf_counter,
    ):
        """Counting starts at `initial`.

        Args:
          total: of all; None if nobody knows.
          what: is done, for the front of the line: "evaluate".
          unit: of what is counted, one of them ("image"), or a sign ("MB").
          initial: how many are done already.
          shown: False for a process that leaves it to another one.
          every_s: seconds between lines where `file` is no terminal; work that is shorter has none.
          file: default stderr.
          now: a clock, in seconds.
        """
        self._file, self._now, self._every = file or sys.stderr, now, every_s
        self._total, self._what, self._unit = total, what, unit
        terminal = self._file.isatty()
        self._lines = shown and not terminal
        self._bar = tqdm(
            initial=initial, total=total, desc=what, unit=unit, file=self._file, disable=not (shown and terminal)
        )
        self._done, self._said = initial, now()
        self._first: tuple[int, float] | None = None  # done, and when; the rate counts from here

    def __exit__(self, *error: object) -> None:
        """Close the bar."""
        self._bar.close()

    def update(self, count: int = 1) -> None:
        """`count` more are done."""
        self._done += count
        self._bar.update(count)
        now = self._now()
        if self._first is None:  # before it workers started, or a program was compiled
            self._first, self._said = (self._done, now), now
        new = self._done - self._first[0]
        if self._lines and new and now - self._said >= self._every:
            self._said = now
            rate = new / (now - self._first[1])
            parts = [f"{self._what} {self._done}", per_second(rate, self._unit)]
            if self._total is not None:
                done = min(self._done, self._total)
                left = (self._total - done) / rate
                parts = [f"{self._what} {done}/{self._total}", parts[1], f"ETA {spoken(left)}"]
            print("  ".join(parts), file=self._file, flush=True)
