"""Published weights on this machine: downloaded once into a cache, whole and verified, or not there.

The cache is the folder ``weights`` of C2AM_CACHE, else of $XDG_CACHE_HOME/c2am_jax or ~/.cache/c2am_jax.
"""

import contextlib
import errno
import fcntl
import hashlib
import http.client
import logging
import os
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from c2am_jax.errors import UserError
from c2am_jax.files import replace_text
from c2am_jax.progress import Counter
from c2am_jax.weights.sources import RemoteFile, Source, find, is_remote

_LOG = logging.getLogger(__name__)
PAUSES = (1.0, 3.0, 10.0)  # seconds before each further try of a download that was cut off
TIMEOUT = 30.0  # seconds without a byte
MB = 10**6
_BLOCK = 1 << 20
_FULL = (errno.ENOSPC, errno.EDQUOT)


class _Failed(Exception):
    """This file cannot be had; the text says why."""


class _Cut(Exception):
    """A download stopped on its way; trying again may help."""


class _Answer(NamedTuple):
    """What a server says before it sends: the whole file's size (None: unknown), its version, its SHA-256 or ""."""

    size: int | None
    version: str
    sha256: str


def cache_folder() -> Path:
    """Where downloaded weights are."""
    given = os.environ.get("C2AM_CACHE")
    if not given:
        given = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "c2am_jax"
    return Path(given).expanduser() / "weights"


def local_copy(source: str | Path) -> Path:
    """`fetch` for a name or a URL; a path is returned as it is. Raises UserError as `fetch`."""
    return fetch(str(source)) if is_remote(str(source)) else Path(source)


def fetch(name: str) -> Path:
    """The file with the weights of a name (`weights.sources`) or a URL, from the cache or downloaded into it.

    A file of the cache is verified each time. A download that was cut off goes on where it stopped. Processes of one
    machine wait for each other, so that one of them downloads.

    Raises:
      UserError: an unknown name, no connection, a wrong checksum, or no space: one line that says what to do.
    """
    source, folder = find(name), cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _lock(folder / f"{source.files[0].cached}.lock", source.name):
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
    if _sha256(path).startswith(expected):
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
        except _Failed as error:
            failures.append(f"{file.url}: {error}")
            _LOG.warning("%s", failures[-1])
    others = f" ({len(failures) - 1} other addresses failed too)" if failures[1:] else ""
    path = folder / source.files[0].cached
    raise UserError(
        f"{source.name} could not be downloaded: {failures[0]}{others}. Download it on another machine and put it to "
        f"{path}, or name a file with --config.train.init=FILE"
    )


def _download(source: Source, file: RemoteFile, folder: Path) -> Path:
    """Raises _Failed: not there, no connection, cut off too often, wrong checksum; OSError: no space."""
    path, partial = folder / file.cached, folder / f"{file.cached}.partial"
    said = ""
    for tries, pause in enumerate((*PAUSES, None)):
        try:
            said = _receive(source, file, partial)
            break
        except _Cut as cut:
            if pause is None:
                raise _Failed(f"{cut}, {tries + 1} times; run the same command again to go on from there") from None
            _LOG.warning("%s: %s; trying again in %g s", file.url, cut, pause)
            time.sleep(pause)
    found, expected = _sha256(partial), file.sha256 or said
    _version_of(partial).unlink(missing_ok=True)
    if not found.startswith(expected):
        partial.unlink()
        raise _Failed(f"the file has the SHA-256 {found} instead of {expected}{'...' if len(expected) < 64 else ''}")
    replace_text(folder / f"{file.cached}.sha256", found)
    partial.replace(path)
    if not expected:
        _LOG.info("%s: nobody says its checksum; add #sha256=%s to the address to have it verified", file.url, found)
    return path


def _receive(source: Source, file: RemoteFile, partial: Path) -> str:
    """Fill `partial`, from where it ends if the server still has the same file; returns the SHA-256 that it says.

    Raises:
      _Cut: fewer bytes came than the server said, or none for a while.
      _Failed: no connection, or the server has no such file.
    """
    there = partial.stat().st_size if partial.is_file() else 0
    version = _version_of(partial).read_text() if there and _version_of(partial).is_file() else ""
    request = urllib.request.Request(file.url, headers={"User-Agent": "c2am_jax", "Accept-Encoding": "identity"})
    if there and (version or file.sha256):  # a checksum tells afterwards whether both parts are of one file
        request.add_header("Range", f"bytes={there}-")
        if version:
            request.add_header("If-Range", version)
    redirects = _Redirects()
    try:
        response = _opener(redirects).open(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416 and there:
            if error.headers.get("Content-Range") == f"bytes */{there}":
                return redirects.sha256  # all of it is there: a kill came just before the end
            partial.unlink()
            raise _Cut("the file there has changed") from None
        kind = _Cut if error.code >= 500 or error.code == 429 else _Failed
        raise kind(f"HTTP {error.code} {error.reason}") from None
    except (urllib.error.URLError, OSError, http.client.HTTPException) as error:
        raise _Failed(f"no connection ({getattr(error, 'reason', None) or error or type(error).__name__})") from None
    with response:
        try:
            answer, begin = _understood(response, redirects.sha256, there, version)
        except _Cut:
            partial.unlink()
            raise
        size = answer.size or file.size
        _enough_space(partial.parent, (size or begin) - begin, source.name)
        if answer.version:
            replace_text(_version_of(partial), answer.version)
        megabytes = f"{size / 1e6:.0f} MB" if size else "of unknown size"
        went_on = f", from {begin / 1e6:.0f} MB on" if begin else ""
        licence = f", licence {source.licence}" if source.licence else ""
        _LOG.info("%s: %s from %s to %s%s%s", source.name, megabytes, file.url, partial.parent, went_on, licence)
        done, total = begin, -(-size // MB) if size else None
        what = f"download {source.name}"
        with partial.open("ab" if begin else "wb") as out, Counter(total, what, "MB", initial=begin // MB) as counter:
            while block := _next_block(response, done):
                out.write(block)
                counter.update((done + len(block)) // MB - done // MB)
                done += len(block)
    if answer.size is not None and done != answer.size:
        raise _Cut(f"cut off after {done} of {answer.size} bytes")
    return answer.sha256


def _next_block(response: Any, done: int) -> bytes:
    try:
        return response.read(_BLOCK)
    except (OSError, http.client.HTTPException) as error:
        raise _Cut(f"cut off after {done} bytes ({error or type(error).__name__})") from None


def _understood(response: Any, said: str, there: int, version: str) -> tuple[_Answer, int]:
    """The answer, and the byte at which it begins: `there` if the server goes on, 0 if it sends the whole file.

    Raises _Cut if it sends a part of another file.
    """
    headers = response.headers
    etag = headers.get("ETag", "")
    now = etag if etag and not etag.startswith("W/") else headers.get("Last-Modified", "")  # weak tags: no ranges
    if response.status == 206:
        span = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", headers.get("Content-Range", ""))
        if not span or int(span[1]) != there or now not in ("", version):
            raise _Cut("the file there has changed")
        return _Answer(int(span[2]), version, said), there
    length = headers.get("Content-Length", "")
    return _Answer(int(length) if length.isdigit() else None, now, said), 0


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows to http and https only, and keeps the SHA-256 of the file that Hugging Face's hub says on the way."""

    sha256 = ""

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        """As the base class; see there."""
        digits = headers.get("X-Linked-ETag", "").strip('"')
        if re.fullmatch(r"[0-9a-f]{64}", digits):
            self.sha256 = digits
        if not newurl.startswith(("https://", "http://")):
            raise urllib.error.HTTPError(newurl, code, "leads to an address that is not http", headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener(redirects: _Redirects) -> urllib.request.OpenerDirector:
    return urllib.request.build_opener(redirects)


def _version_of(partial: Path) -> Path:
    """Where the server's name for the version of a partial file stands (its ETag or date)."""
    return partial.with_name(f"{partial.name}.version")


def _enough_space(folder: Path, missing: int, name: str) -> None:
    free = shutil.disk_usage(folder).free
    if missing > free:
        raise OSError(errno.ENOSPC, f"{name} needs {missing / 1e6:.0f} MB more and {free / 1e6:.0f} MB are free")


def _space_text(error: OSError, folder: Path) -> str:
    if error.errno not in _FULL:
        return ""
    return f"{folder}: the disk is full ({error.strerror}): free some space or set C2AM_CACHE to a folder elsewhere"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def _lock(path: Path, name: str) -> Iterator[None]:
    """Held by one process of this machine at a time; a killed one lets go."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _LOG.info("%s: another process downloads it; waiting", name)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
