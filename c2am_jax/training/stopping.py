"""Why a run stops before its end, other than by wrong input: a request of machine or user, or a step that hangs."""

import contextlib
import logging
import os
import signal
import statistics
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import Any

import jax
from jax.experimental import multihost_utils

from c2am_jax.errors import EXIT_INTERRUPTED, Stopped

_LOG = logging.getLogger(__name__)


class StopRequest:
    """Listens for SIGTERM and Ctrl-C (SIGINT) while it is open; a second Ctrl-C ends the process at once.

    With several hosts JAX's own preemption service listens, and all of them learn of a request on any at the same
    step.
    """

    def __init__(self):
        """Nothing is requested yet."""
        self._requested = False
        self._saved: str | None = None  # what to say if a request may end the work right away
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        """Start to listen (in the main thread; elsewhere signals can't be caught)."""
        if threading.current_thread() is threading.main_thread():
            self._before = {signal.SIGINT: signal.signal(signal.SIGINT, self._note)}
            if jax.process_count() == 1:
                self._before[signal.SIGTERM] = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, *error: Any) -> None:
        """Back to what the signals did before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, *_: Any) -> None:
        keyboard = number == signal.SIGINT
        if keyboard and self._requested:
            _tell("\nstopped at once: the newest finished checkpoint counts; run the same command again to resume\n")
            os._exit(EXIT_INTERRUPTED)
        self._requested = True
        if keyboard and jax.process_count() > 1:
            os.kill(os.getpid(), signal.SIGTERM)  # which JAX's service passes on to all hosts
        if self._saved is not None:
            raise Stopped(self._saved)
        again = "; Ctrl-C again stops at once" if keyboard else ""
        _tell(f"\nstopping: this step is finished (and compiled, if it is a first one) and saved first{again}\n")

    def reached(self, step: int) -> bool:
        """Whether to save and stop after `step`; every host has to ask at every step, and all get the same answer."""
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(step)
        return self._requested

    @contextlib.contextmanager
    def nothing_to_save(self, text: str) -> Iterator[None]:
        """Work in which a request raises `Stopped` with `text` at once, on a single host."""
        if jax.process_count() > 1:
            yield
            return
        self._saved = text
        try:
            if self._requested:
                raise Stopped(text)
            yield
        finally:
            self._saved = None


def _tell(text: str) -> None:
    """Write to stderr from a signal handler: what was interrupted may hold the lock of Python's own stream."""
    os.write(2, text.encode())


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
                doubt = "is a host, the data folder or the checkpoint store hanging?"
                _LOG.warning("a step takes %.0f s so far, the usual ones %.2f s: %s", waited, usual, doubt)
