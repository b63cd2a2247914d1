"""Local and remote (gs://) files through one layer, etils.epath; TensorFlow speaks to the remote ones."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator

from etils import epath

from c2am_jax.errors import UserError

_SCHEMES = ("gs://", "s3://", "az://", "hf://")


class RemoteError(UserError):
    """Remote storage that does not answer or refuses; the text is its own."""


def is_remote(path: str | os.PathLike) -> bool:
    """Whether a path is a URI of remote storage."""
    return os.fspath(path).startswith(_SCHEMES)


@contextlib.contextmanager
def remote_errors() -> Iterator[None]:
    """TensorFlow's errors about remote files become one line."""
    try:
        yield
    except Exception as error:
        tensorflow = sys.modules.get("tensorflow")
        if tensorflow is None or not isinstance(error, tensorflow.errors.OpError):
            raise
        raise RemoteError(f"remote storage: {error.message.splitlines()[0]}") from None


@contextlib.contextmanager
def local_file(path: str | os.PathLike) -> Iterator[str]:
    """A local file itself; of a remote one a copy, which lasts as long as the context. RemoteError without it."""
    if not is_remote(path):
        yield os.fspath(path)
        return
    if not epath.Path(path).exists():
        raise RemoteError(f"{os.fspath(path)}: no such file")
    with tempfile.TemporaryDirectory() as scratch:
        yield os.fspath(epath.Path(path).copy(os.path.join(scratch, "copy"), overwrite=True))


def replace_text(path: epath.Path, text: str) -> None:
    """Write a small file so that it is either whole or not there."""
    partial = path.parent / f"{path.name}.{os.getpid()}.partial"
    partial.write_text(text)
    partial.replace(path)
