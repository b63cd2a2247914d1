"""Files in buckets (gs://): what goes wrong there as one line, what is worked on locally, and writes on a condition.

Paths of `files.as_path` read and write single files, by gcsfs. What they cannot do is done here by
google-cloud-storage: to list objects with their checksums, to send and fetch files checked, and to write only what
nobody changed.
"""

import base64
import contextlib
import functools
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from c2am_jax.errors import UserError
from c2am_jax.files import as_path, cache_folder, is_remote

FIRST_TRY_S = 10.0  # that the first request to a bucket may take before it counts as out of reach
BLOCK_S = 60.0  # that a block of a file may take
_BLOCK = 1 << 20
_PROBE = ".c2am_jax_can_write"


class StorageError(UserError):
    """A disk or a remote storage that is full, refuses, or does not answer; the text is its own."""


def _remote_errors() -> tuple[type[Exception], ...]:
    """What the packages that speak to buckets raise, as far as they are in use."""
    names = {
        "google.api_core.exceptions": ("GoogleAPIError",),
        "google.auth.exceptions": ("GoogleAuthError",),
        "google.cloud.storage.exceptions": ("DataCorruption", "InvalidResponse"),
        "gcsfs.retry": ("HttpError", "ChecksumError"),
        "requests.exceptions": ("RequestException",),
        "aiohttp.client_exceptions": ("ClientError",),
    }
    known = ((sys.modules.get(module), found) for module, found in names.items())
    return tuple(getattr(module, name) for module, found in known if module for name in found if hasattr(module, name))


@contextlib.contextmanager
def storage_errors(place: str | os.PathLike) -> Iterator[None]:
    """What the system or a remote storage says becomes one line; `place` is named if they name none."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        local = isinstance(error, OSError) and (error.filename or error.strerror or not is_remote(place))
        if isinstance(error, _remote_errors()) or (isinstance(error, OSError) and not local):
            raise StorageError(f"{os.fspath(place)}: {_explained(error)}") from None
        if not isinstance(error, OSError):
            raise
        raise StorageError(f"{error.filename or os.fspath(place)}: {error.strerror or error}") from None


def remote_errors(place: str | os.PathLike) -> contextlib.AbstractContextManager[None]:
    """`storage_errors` of a remote place; nothing of a local one."""
    return storage_errors(place) if is_remote(place) else contextlib.nullcontext()


def _explained(error: Exception) -> str:
    """What a bucket's refusal means, and what to do."""
    code, text = getattr(error, "code", None), " ".join(str(error).split())
    said = f" ({text[:300]})" if text else ""
    kind, auth = type(error).__name__, sys.modules.get("google.auth.exceptions")
    if code == 401 or (auth and isinstance(error, auth.GoogleAuthError) and kind != "TransportError"):
        return (
            f"no credentials that work{said}: run gcloud auth application-default login, or name a service account's "
            "file by GOOGLE_APPLICATION_CREDENTIALS"
        )
    if code == 403 or kind == "PermissionError" or text.startswith("Forbidden"):
        return (
            f"permission denied{said}: give this account the roles Storage Object User and Storage Legacy Bucket "
            "Reader on the bucket (for data that is only read: Storage Object Viewer)"
        )
    if code == 404 or isinstance(error, FileNotFoundError):
        return f"not there{said}: correct the address"
    if isinstance(error, OSError) or kind in ("RetryError", "TransportError", "ServiceUnavailable"):
        return f"the bucket cannot be reached{said}: check the network, then run the same command again"
    return f"remote storage: {text or kind}"


class Object(NamedTuple):
    """What a bucket says of a file: bytes, CRC-32C in base64 of big-endian bytes, and the number of its version."""

    size: int
    crc32c: str
    generation: int


@functools.cache
def _client() -> Any:
    from google.cloud import storage

    return storage.Client()


def _split(path: str | os.PathLike) -> tuple[Any, str]:
    """Bucket, without a request, and the name of an object or folder in it."""
    text = os.fspath(as_path(path))  # which has no slash at the end
    if not text.startswith("gs://"):
        raise StorageError(f"{text}: runs and prepared data are kept in local folders or gs:// buckets only")
    bucket, _, name = text.removeprefix("gs://").partition("/")
    return _client().bucket(bucket), name


@contextlib.contextmanager
def _place(path: str | os.PathLike) -> Iterator[tuple[Any, str]]:
    """`_split` within `storage_errors`."""
    with storage_errors(path):
        yield _split(path)


def check_reachable(folder: str | os.PathLike, *, run: bool = False) -> None:
    """Before any work: one request that tells whether a remote folder can be read; nothing for local ones.

    Args:
      folder: there or not, in a bucket that has to be there.
      run: whether it is the workdir of a run: Orbax asks for the bucket's own properties.

    Raises:
      StorageError: no such bucket, no permission, no answer; the text names the address and the fix.
    """
    if not is_remote(folder):
        return
    with _place(folder) as (bucket, name):
        patience = _patience(FIRST_TRY_S)
        try:
            next(iter(bucket.list_blobs(prefix=f"{name}/", max_results=1, retry=patience, timeout=FIRST_TRY_S)), None)
            if run:
                bucket.reload(retry=patience, timeout=FIRST_TRY_S)
        except Exception as error:
            if getattr(error, "code", None) != 404:
                raise
            raise StorageError(
                f"{os.fspath(folder)}: there is no bucket {bucket.name}: correct the address, or make it with gcloud "
                f"storage buckets create gs://{bucket.name}"
            ) from None


def check_writable(folder: str | os.PathLike) -> None:
    """Before long work whose results go to a remote folder: raises StorageError if nothing can be written there."""
    if is_remote(folder):
        with _place(folder) as (bucket, name):
            probe = bucket.blob(f"{name}/{_PROBE}".lstrip("/"))
            probe.upload_from_string("", retry=_patience(FIRST_TRY_S), timeout=FIRST_TRY_S)
            probe.delete()


def check_output(flag: str, path: str | os.PathLike, *, folder: bool = False) -> None:
    """Before long work: whether its result can be written. What is missing is not made yet: that is for whoever writes.

    Args:
      flag: that names the place, "--out".
      path: of a file that may be there or not, or of a `folder`, local or remote; a device such as /dev/stdout may be
        written as it is.
      folder: whether files go into it.

    Raises:
      StorageError: it can't; the text names flag and path, and says what to do.
    """
    kind, named = "folder" if folder else "file", f"{flag} {os.fspath(path)}"
    if is_remote(path):
        return check_writable(path if folder else as_path(path).parent)
    place = Path(path)
    try:
        if place.exists() and not (place.is_dir() if folder else place.is_file()):
            if place.is_dir() or place.is_file():
                raise StorageError(f"{named}: this is a {'file' if folder else 'folder'}; name a {kind}")
            return
        nearest = place if folder else place.absolute().parent
        while not nearest.exists():
            nearest = nearest.absolute().parent
        if not nearest.is_dir():
            raise StorageError(f"{named}: {nearest} is a file, not a folder; name another {kind}")
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        raise StorageError(
            f"{named}: this {kind} can't be written ({error.strerror or error}): free space or permissions there, or "
            f"name another {kind}"
        ) from None


def _patience(seconds: float) -> Any:
    from google.cloud.storage.retry import DEFAULT_RETRY

    return DEFAULT_RETRY.with_timeout(seconds)


@contextlib.contextmanager
def local_file(path: str | os.PathLike) -> Iterator[str]:
    """A local file itself; of a remote one a copy, which lasts as long as the context. StorageError without it."""
    if not is_remote(path):
        yield os.fspath(path)
        return
    with tempfile.TemporaryDirectory(prefix="c2am_") as scratch:
        place = Path(scratch) / as_path(path).name
        with storage_errors(path):
            if not as_path(path).is_file():
                raise StorageError(f"{os.fspath(path)}: no such file")
            fetch(path, place)
        yield os.fspath(place)


@contextlib.contextmanager
def worked_on(folder: str | os.PathLike) -> Iterator[Path]:
    """A local folder to write into: `folder`, made if need be; of a remote one a stand-in, sent there at the end.

    After an error nothing is sent. Raises StorageError if it cannot be sent; the stand-in stays then, and is named.
    """
    if not is_remote(folder):
        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        yield place
        return
    place, keep = Path(tempfile.mkdtemp(prefix="c2am_")), False
    try:
        yield place
        for file in sorted(path for path in place.rglob("*") if path.is_file()):
            try:
                send(file, as_path(folder) / file.relative_to(place).as_posix())
            except StorageError as error:
                keep = True
                raise StorageError(f"{error}; the files stay in {place}: copy them to {os.fspath(folder)}") from None
    finally:
        if not keep:
            shutil.rmtree(place, ignore_errors=True)


def objects(folder: str | os.PathLike) -> dict[str, Object]:
    """The files below a remote folder, by their paths in it."""
    with _place(folder) as (bucket, name):
        front = f"{name}/" if name else ""
        fields = "items(name,size,crc32c,generation),nextPageToken"
        return {
            blob.name.removeprefix(front): Object(blob.size, blob.crc32c, blob.generation)
            for blob in bucket.list_blobs(prefix=front, fields=fields)
            if not blob.name.endswith("/")  # a folder that a console made
        }


def crc32c(path: Path) -> str:
    """The checksum of a local file as `Object` has it."""
    import google_crc32c

    found = google_crc32c.Checksum()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            found.update(block)
    return base64.b64encode(found.digest()).decode()


def send(file: Path, target: str | os.PathLike) -> None:
    """Copy a local file to a remote place; the storage compares the checksums."""
    with _place(target) as (bucket, name):
        bucket.blob(name).upload_from_filename(str(file), checksum="crc32c")


def fetch(source: str | os.PathLike, file: Path) -> None:
    """Copy a remote file to a local place, checked by its checksum."""
    with _place(source) as (bucket, name):
        bucket.blob(name).download_to_filename(str(file), checksum="crc32c")


def read_range(source: str | os.PathLike, generation: int, begin: int, end: int) -> bytes:
    """Bytes `begin` to `end`, without the last, of one version of a remote file."""
    with _place(source) as (bucket, name):
        blob = bucket.blob(name, generation=generation)
        within = {"retry": _patience(BLOCK_S), "timeout": BLOCK_S}
        return blob.download_as_bytes(start=begin, end=end - 1, raw_download=True, checksum=None, **within)


def delete(folder: str | os.PathLike) -> None:
    """Delete all below a remote folder."""
    with _place(folder) as (bucket, name):
        for file in objects(folder):
            bucket.blob(f"{name}/{file}").delete()


def move(folder: str | os.PathLike, target: str | os.PathLike) -> None:
    """Move all below a remote folder to another name in the same bucket."""
    with _place(folder) as (bucket, name):
        _, new = _split(target)
        for file in objects(folder):
            source = bucket.blob(f"{name}/{file}")
            bucket.copy_blob(source, bucket, f"{new}/{file}")
            source.delete()


def read_version(file: str | os.PathLike) -> tuple[str, int] | None:
    """Text and version of a small remote file; None if there is none."""
    with _place(file) as (bucket, name):
        blob = bucket.get_blob(name)
        if blob is None:
            return None
        with _not_there():
            return blob.download_as_text(if_generation_match=blob.generation), blob.generation
        return read_version(file)  # it changed between the two requests


def write_version(file: str | os.PathLike, text: str, version: int) -> int | None:
    """Write a small remote file if its version is still that one, 0 for none; returns the new version, else None."""
    with _place(file) as (bucket, name):
        blob = bucket.blob(name)
        with _not_there():
            blob.upload_from_string(text, if_generation_match=version)
            return blob.generation
        return None


def delete_version(file: str | os.PathLike, version: int) -> None:
    """Delete a small remote file if its version is still that one."""
    with _place(file) as (bucket, name), _not_there():
        bucket.blob(name).delete(if_generation_match=version)


@contextlib.contextmanager
def _not_there() -> Iterator[None]:
    """Ends quietly where the version that was asked for is not there (any more)."""
    try:
        yield
    except Exception as error:
        if getattr(error, "code", None) not in (404, 412):
            raise


class Mirror:
    """Files of a remote folder that this machine writes piece by piece, and copies there from time to time.

    Attributes:
      folder: the local one, in the cache; empty at first.
    """

    def __init__(self, remote: str | os.PathLike):
        """Nothing is fetched yet."""
        self._remote = as_path(remote)
        self.folder = self.place(self._remote)
        self._sent: Mapping[str, tuple[int, int]] = {}
        self.folder.mkdir(parents=True, exist_ok=True)
        for left in self.folder.iterdir():  # of a run that was killed: it has sent what counts
            if left.is_file():
                left.unlink()

    @staticmethod
    def place(remote: str | os.PathLike) -> Path:
        """The local folder of a remote one."""
        return cache_folder("runs") / os.fspath(remote).replace("://", "/")

    def fetch(self, name: str) -> None:
        """Take the copy of a file that is in the bucket, if one is. Raises StorageError."""
        if (self._remote / name).is_file():
            fetch(self._remote / name, self.folder / name)

    def publish(self) -> None:
        """Send the files that grew since the last time. Raises StorageError."""
        for file in sorted(self.folder.iterdir()):
            stat = file.stat()
            now = stat.st_size, stat.st_mtime_ns
            if file.is_file() and self._sent.get(file.name) != now:
                send(file, self._remote / file.name)
                self._sent = {**self._sent, file.name: now}
