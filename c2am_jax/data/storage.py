"""Local and remote (gs://) files through one layer, etils.epath; TensorFlow speaks to the remote ones."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator

from etils import epath

from c2am_jax.errors import UserError

_SCHEMES = ("gs://", "s3://", "az://", "hf://")


class StorageError(UserError):
    """A disk or a remote storage that is full, refuses, or does not answer; the text is its own."""


def is_remote(path: str | os.PathLike) -> bool:
    """Whether a path is a URI of remote storage."""
    return os.fspath(path).startswith(_SCHEMES)


@contextlib.contextmanager
def storage_errors(place: str | os.PathLike) -> Iterator[None]:
    """What the system or TensorFlow (for remote files) says becomes one line; `place` is named if they name none."""
    try:
        yield
    except UserError:
        raise
    except OSError as error:
        raise StorageError(f"{error.filename or os.fspath(place)}: {error.strerror or error}") from None
    except Exception as error:
        tensorflow = sys.modules.get("tensorflow")
        if tensorflow is None or not isinstance(error, tensorflow.errors.OpError):
            raise
        raise StorageError(f"{os.fspath(place)}: remote storage: {error.message.splitlines()[0]}") from None


@contextlib.contextmanager
def local_file(path: str | os.PathLike) -> Iterator[str]:
    """A local file itself; of a remote one a copy, which lasts as long as the context. StorageError without it."""
    if not is_remote(path):
        yield os.fspath(path)
        return
    if not epath.Path(path).exists():
        raise StorageError(f"{os.fspath(path)}: no such file")
    with tempfile.TemporaryDirectory() as scratch:
        yield os.fspath(epath.Path(path).copy(os.path.join(scratch, "copy"), overwrite=True))
