"""Why a run stops before its end, other than by wrong input: a request of the machine, or a step that hangs."""

import logging
import signal
import statistics
import threading
import time
from collections import deque
from typing import Any

import jax
from jax.experimental import multihost_utils

_LOG = logging.getLogger(__name__)


class StopRequest:
    """Listens for SIGTERM while it is open.

    With several hosts JAX's own preemption service listens, and all of them learn of a request on any at the same
    step.
    """

    def __init__(self):
        """Nothing is requested yet."""
        self._requested = False
        self._before: Any = None

    def __enter__(self) -> "StopRequest":
        """Start to listen (in the main thread; elsewhere signals can't be caught)."""
        if jax.process_count() == 1 and threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, *error: Any) -> None:
        """Back to what a SIGTERM did before."""
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    def _note(self, *_: Any) -> None:
        self._requested = True

    def reached(self, step: int) -> bool:
        """Whether to save and stop after `step`; every host has to ask at every step, and all get the same answer."""
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(step)
        return self._requested


class Watchdog:
    """Warns while a step takes much longer than the usual ones: a hanging host, store or data folder."""

    def __init__(self, *, factor: float = 10.0, at_least_s: float = 60.0, steps: int = 50):
        """Warn after `factor` times the median of the last `steps` steps, but not before `at_least_s` seconds."""
        self._factor, self._at_least = factor, at_least_s
        self._seconds: deque[float] = deque(maxlen=steps)
        self._last: float | None = None
        self._warned = False
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Watchdog":
        """Start to watch, in a thread of its own."""
        self._thread.start()
        return self

    def __exit__(self, *error: Any) -> None:
        """End the watch and its thread."""
        self._closed.set()
        self._thread.join()

    def pause(self) -> None:
        """Other work than a usual step begins (a compilation, an evaluation): no watch until the next beat."""
        self._last = None

    def beat(self) -> None:
        """A step is done."""
        now = time.monotonic()
        if self._last is not None:
            self._seconds.append(now - self._last)
        self._last, self._warned = now, False

    def _watch(self) -> None:
        while not self._closed.wait(min(1.0, self._at_least / 4)):
            last = self._last
            if last is None or self._warned or len(self._seconds) < 3:
                continue
            usual, waited = statistics.median(self._seconds), time.monotonic() - last
            if waited > max(self._factor * usual, self._at_least):
                self._warned = True
                _LOG.warning(
                    "a step takes %.0f s so far, the usual ones %.2f s: is a host, the data folder or the checkpoint "
                    "store hanging?",
                    waited,
                    usual,
                )
