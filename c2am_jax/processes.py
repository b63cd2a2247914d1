"""Worker processes that end with their parent and leave interrupts from the keyboard to it."""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from typing import Any

# Fresh interpreters: a fork of a process with threads (TensorFlow's, JAX's) may hang.
CONTEXT = multiprocessing.get_context("spawn")


class WorkerPool(ProcessPoolExecutor):
    """Fresh interpreters that work for a command: Ctrl-C reaches the command alone; if it is killed, they end too."""

    def __init__(self, workers: int, initializer: Callable[..., None] | None = None, arguments: tuple[Any, ...] = ()):
        """`initializer` runs with `arguments` in each of the `workers` before its work."""
        super().__init__(workers, CONTEXT, initializer=_start, initargs=(initializer, arguments))

    def submit(self, *call: Any, **options: Any) -> Future:
        """As of the base class; a worker that starts here prints no traceback of an interrupt in its imports."""
        with _interrupts_ignored():
            return super().submit(*call, **options)


@contextlib.contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Processes that start in here inherit it."""
    if threading.current_thread() is not threading.main_thread():  # only that one may set handlers
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _start(initializer: Callable[..., None] | None, arguments: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow():
        parent.join()
        os._exit(1)  # killed: nobody waits for this work

    threading.Thread(target=follow, daemon=True).start()
    if initializer is not None:
        initializer(*arguments)
