"""TensorFlow as the data room uses it: on the host only, and without its start-up chatter."""

import contextlib
import os
import sys
from collections.abc import Iterator

# oneDNN multiplies matrices, which the host never does, and logs an error on most CPUs: it lacks a type there.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
_LEVEL = "TF_CPP_MIN_LOG_LEVEL"  # of JAX too


@contextlib.contextmanager
def _errors_only() -> Iterator[None]:
    """TensorFlow's C++ code logs errors only, which it decides when it is imported; "1" is what JAX sets for itself."""
    given = os.environ.get(_LEVEL)
    if given in (None, "1"):
        os.environ[_LEVEL] = "2"
    try:
        yield
    finally:
        os.environ.pop(_LEVEL)
        os.environ.update({_LEVEL: given} if given is not None else {})


@contextlib.contextmanager
def _silent_stderr() -> Iterator[None]:
    """What C++ libraries write to stderr is dropped; Python exceptions pass."""
    sys.stderr.flush()
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


with _errors_only(), _silent_stderr():  # messages that come before any log level counts
    import tensorflow as tf
    import tensorflow_datasets as tfds

    tf.config.set_visible_devices([], "GPU")
tfds.disable_progress_bar()

__all__ = ["tf", "tfds"]
