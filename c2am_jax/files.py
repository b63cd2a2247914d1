"""Paths on a disk and in buckets alike, and files that are whole or not there, whenever the process is killed."""

import contextlib
import fcntl
import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

from c2am_jax.errors import UserError

SCHEMES = ("gs://", "s3://", "az://", "hf://")


def is_remote(path: str | os.PathLike) -> bool:
    """Whether a path is a URI of remote storage."""
    return os.fspath(path).startswith(SCHEMES)


def as_path(path: str | os.PathLike) -> Path:
    """A path to look at and to read and write small files by, wherever it is.

    Of a local one it is a `Path`; of a remote one an `epath.Path`, which has the same methods but for ``rglob`` and
    ``absolute``, and a ``stat`` of its own.

    Raises:
      UserError: a remote path, and the package that speaks to its storage is not installed.
    """
    if not is_remote(path):
        return Path(path)
    _prepare_remote()
    from etils import epath

    return cast(Path, epath.Path(path))


@functools.cache
def _prepare_remote() -> None:
    """Choose how epath speaks to buckets: fsspec and gcsfs, never TensorFlow, which knows no emulator."""
    os.environ.setdefault("EPATH_USE_TF", "false")
    emulator = os.environ.get("STORAGE_EMULATOR_HOST")
    settings: dict[str, object] = {"use_listings_cache": False}  # others write there too: tensorstore, other hosts
    if emulator:  # what gcsfs and google-cloud-storage read; tensorstore has a variable of its own
        os.environ.setdefault("TENSORSTORE_GCS_HTTP_URL", emulator)
        os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")  # of gRPC alone
        os.environ.setdefault("GOOGLE_AUTH_TOKEN_FOR_TESTING", "emulator")  # tensorstore looks for no credentials then
        settings["token"] = "anon"
    try:
        import gcsfs  # noqa: F401  which epath imports when it is needed, without saying what to install
        from fsspec.config import conf
    except ImportError:
        raise UserError(
            'gs:// needs the packages of the extra "gcs": pip install "c2am_jax[gcs]", or in a clone pip install '
            '".[gcs]"'
        ) from None
    from etils.epath import gpath

    gpath._is_tf_installed.cache_clear()  # epath looks at its variable once, as soon as any path is used
    for name, value in settings.items():
        conf.setdefault("gcs", {}).setdefault(name, value)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name beside `path`, with its suffix, to write to; it becomes `path` at the end, or goes if an error comes."""
    place = as_path(path)
    partial = place.parent / f"{place.stem}.{os.getpid()}.partial{place.suffix}"
    try:
        yield partial
        partial.replace(place)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def replace_text(path: Path, text: str) -> None:
    """Write a small file, local or remote: a kill leaves the old or the new text, never half of it."""
    if is_remote(path):  # an object is there when all of it has come
        as_path(path).write_text(text)
        return
    with replacing(path) as partial:
        partial.write_text(text)


def write_output(path: str | Path, content: str | bytes) -> None:
    """Write a file that a user named, local or remote, whole or not at all; its folder is made if need be.

    What is there and no plain file, such as /dev/stdout, is written as it is.
    """
    place, data = as_path(path), content.encode() if isinstance(content, str) else content
    if is_remote(place) or (place.exists() and not place.is_file()):
        place.write_bytes(data)
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    with replacing(place) as partial:
        partial.write_bytes(data)


def cache_folder(name: str) -> Path:
    """The folder `name` of C2AM_CACHE, else of $XDG_CACHE_HOME/c2am_jax or ~/.cache/c2am_jax, for what can go."""
    given = os.environ.get("C2AM_CACHE")
    if not given:
        given = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "c2am_jax"
    return Path(given).expanduser() / name


@contextlib.contextmanager
def locked(path: Path, waits: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Held by one process of this machine at a time, as far as the file system can say so; a killed one lets go.

    The file goes when it is let go. Whoever waited for it then holds a file without a name, and locks again.

    Args:
      path: of the lock, in a folder that is there.
      waits: called once if another process holds it.
    """
    told = False
    while True:
        with path.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not told:
                    waits()
                told = True
                fcntl.flock(file, fcntl.LOCK_EX)
            except OSError:  # a file system without locks
                pass
            if not _has_name(file.fileno(), path):
                continue
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return


def _has_name(descriptor: int, path: Path) -> bool:
    """Whether an open file is the one that `path` names now."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
