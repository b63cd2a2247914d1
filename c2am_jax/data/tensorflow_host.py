"""TensorFlow as the data room uses it: on the host only, and without its start-up chatter."""

import contextlib
import os
import sys
from collections.abc import Iterator

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


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


with _silent_stderr():  # messages that come before any log level counts
    import tensorflow as tf
    import tensorflow_datasets as tfds

    tf.config.set_visible_devices([], "GPU")
tfds.disable_progress_bar()

__all__ = ["tf", "tfds"]
