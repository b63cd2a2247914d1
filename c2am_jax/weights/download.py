"""Published weights on this machine: downloaded once into a cache, whole and verified, or not there.

The cache is the folder ``weights`` of C2AM_CACHE, else of $XDG_CACHE_HOME/c2am_jax or ~/.cache/c2am_jax.
"""

import logging
from pathlib import Path

from c2am_jax import downloads, files
from c2am_jax.errors import UserError
from c2am_jax.files import replace_text
from c2am_jax.weights.sources import RemoteFile, Source, find, is_remote
from c2am_jax.wording import counted

_LOG = logging.getLogger(__name__)


def cache_folder() -> Path:
    """Where downloaded weights are."""
    return files.cache_folder("weights")


def local_copy(source: str | Path) -> Path:
    """`fetch` for a name or a URL; a path is returned as it is. Raises UserError as `fetch`."""
    return fetch(str(source)) if is_remote(str(source)) else Path(source)


def fetch(name: str) -> Path:
    """The file with the weights of a name (`weights.sources`) or a URL, from the cache or downloaded into it.

    A file of the cache is verified each time. A download that was cut off resumes where it stopped. Processes of one
    machine wait for each other, so that one of them downloads.

    Raises:
      UserError: an unknown name, no connection, a wrong checksum, or no space: one line that says what to do.
    """
    source, folder = find(name), cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with downloads.lock(folder / f"{source.files[0].cached}.lock", source.name):
            for file in source.files:
                if _cached(file, folder):
                    return folder / file.cached
            return _first_that_works(source, folder)
    except OSError as error:
        raise UserError(_space_text(error, folder) or f"{folder}: {error}; set C2AM_CACHE to another folder") from None


def _cached(file: RemoteFile, folder: Path) -> bool:
    """Whether the cache has the file, with the checksum it should have; a wrong one is deleted."""
    path, stamp = folder / file.cached, folder / f"{file.cached}.sha256"
    if not path.is_file():
        return False
    expected = file.sha256 or (stamp.read_text().strip() if stamp.is_file() else "")
    if downloads.sha256(path).startswith(expected):
        return True
    _LOG.warning(
        "%s is not the file that was downloaded (another SHA-256 than %s): it is fetched again", path, expected
    )
    path.unlink()
    return False


def _first_that_works(source: Source, folder: Path) -> Path:
    failures = []
    for file in source.files:
        try:
            return _download(source, file, folder)
        except downloads.Failed as error:
            failures.append(f"{file.url}: {error}")
            _LOG.warning("%s", failures[-1])
    others = f" ({counted(len(failures) - 1, 'other address')} failed too)" if failures[1:] else ""
    path = folder / source.files[0].cached
    raise UserError(
        f"{source.name} could not be downloaded: {failures[0]}{others}. Download it on another machine and put it to "
        f"{path}, or name a file with --config.train.init=FILE"
    )


def _download(source: Source, file: RemoteFile, folder: Path) -> Path:
    """Raises Failed and OSError as `downloads.download`."""
    path, partial = folder / file.cached, folder / f"{file.cached}.partial"
    wanted = downloads.Wanted(source.name, file.url, file.sha256, file.size, source.licence)
    found, expected = downloads.download(wanted, partial)
    replace_text(folder / f"{file.cached}.sha256", found)
    partial.replace(path)
    if not expected:
        _LOG.info("%s: its checksum is not known; add #sha256=%s to the address to verify it", file.url, found)
    return path


def _space_text(error: OSError, folder: Path) -> str:
    if not downloads.is_full(error):
        return ""
    return f"{folder}: the disk is full ({error.strerror}): free some space or set C2AM_CACHE to a folder elsewhere"
