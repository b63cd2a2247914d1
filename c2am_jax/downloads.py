"""One file from the web: it resumes where it was cut off and is verified, or the text of `Failed` says why not."""

import contextlib
import errno
import hashlib
import http.client
import logging
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from c2am_jax.files import locked, replace_text
from c2am_jax.progress import Counter

_LOG = logging.getLogger(__name__)
PAUSES = (1.0, 3.0, 10.0)  # seconds before each further try of a download that was cut off
TIMEOUT = 30.0  # seconds without a byte
MB = 10**6
WORTH = 100 * MB  # after a try that brought so many bytes, the tries are counted from 0 again
_BLOCK = 1 << 20
_LONG = 1000 * MB  # files whose check takes seconds
_FULL = (errno.ENOSPC, errno.EDQUOT)


class Failed(Exception):
    """This file cannot be had; the text says why."""


class _NoConnection(Failed):
    """Nobody answered."""


class _Cut(Exception):
    """A download stopped on its way; trying again may help."""


class Wanted(NamedTuple):
    """A file of the web.

    Attributes:
      name: of what it is, for lines and progress.
      url: where it is.
      sha256: of its content, whole or its first digits; "" if nobody says it.
      size: in bytes, None if nobody says it.
      licence: told as the download starts.
    """

    name: str
    url: str
    sha256: str = ""
    size: int | None = None
    licence: str = ""


class Received(NamedTuple):
    """SHA-256 of a file that came, and what it was compared with: whole, the first digits, or "" for nothing."""

    sha256: str
    expected: str


class _Answer(NamedTuple):
    """What a server says before it sends: the whole file's size (None: unknown), its version, its SHA-256 or ""."""

    size: int | None
    version: str
    sha256: str


def download(wanted: Wanted, partial: Path) -> Received:
    """Fill the file `partial`, from where it ends; renaming it is the caller's.

    Raises:
      Failed: not there, no connection, cut off too often, another size or checksum.
      OSError: no space.
    """
    tries = 0
    while True:
        before = _size(partial)
        try:
            said = _receive(wanted, partial)
            break
        except (_Cut, _NoConnection) as error:
            if isinstance(error, _NoConnection) and not tries:
                raise
            tries = 1 if _size(partial) - before >= WORTH else tries + 1
            if tries > len(PAUSES):
                raise Failed(f"{error}, {tries} times; run the same command again to resume from there") from None
            pause = PAUSES[tries - 1]
            _LOG.warning("%s: %s; trying again in %g s", wanted.url, error, pause)
            time.sleep(pause)
    _version_of(partial).unlink(missing_ok=True)
    found = Received(sha256(partial), wanted.sha256 or said)
    problem = ""
    if wanted.size not in (None, _size(partial)):
        problem = f"the file has {_size(partial)} bytes instead of {wanted.size}"
    elif not found.sha256.startswith(found.expected):
        dots = "..." if len(found.expected) < 64 else ""
        problem = f"the file has the SHA-256 {found.sha256} instead of {found.expected}{dots}"
    if problem:
        partial.unlink()
        raise Failed(problem)
    return found


def _receive(wanted: Wanted, partial: Path) -> str:
    """Fill `partial`, from where it ends if the server still has the same file; returns the SHA-256 that it says.

    Raises:
      _Cut: fewer bytes came than the server said, or none for a while.
      Failed: no connection, or the server has no such file, or one of another size.
    """
    there = _size(partial)
    version = _version_of(partial).read_text() if there and _version_of(partial).is_file() else ""
    request = urllib.request.Request(wanted.url, headers={"User-Agent": "c2am_jax", "Accept-Encoding": "identity"})
    if there and (version or wanted.sha256):  # a checksum tells afterwards whether both parts are of one file
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
        kind = _Cut if error.code >= 500 or error.code == 429 else Failed
        raise kind(f"HTTP {error.code} {error.reason}") from None
    except (urllib.error.URLError, OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error or type(error).__name__
        raise _NoConnection(f"no connection ({reason})") from None
    with response:
        try:
            answer, begin = _understood(response, redirects.sha256, there, version)
        except _Cut:
            partial.unlink()
            raise
        size = answer.size or wanted.size
        if wanted.size not in (None, size):
            raise Failed(f"the file there has {size} bytes instead of {wanted.size}")
        _enough_space(partial.parent, (size or begin) - begin, wanted.name)
        if answer.version:
            replace_text(_version_of(partial), answer.version)
        megabytes = f"{size / 1e6:.0f} MB" if size else "of unknown size"
        went_on = f", from {begin / 1e6:.0f} MB on" if begin else ""
        licence = f", licence {wanted.licence}" if wanted.licence else ""
        _LOG.info("%s: %s from %s to %s%s%s", wanted.name, megabytes, wanted.url, partial.parent, went_on, licence)
        done, total = begin, -(-size // MB) if size else None
        what = f"download {wanted.name}"
        with partial.open("ab" if begin else "wb") as out, Counter(total, what, "MB", initial=begin // MB) as counter:
            while block := _next_block(response, done):
                out.write(block)
                counter.update(more_megabytes(done, len(block)))
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
    """The answer, and the byte at which it begins: `there` if the server resumes, 0 if it sends the whole file.

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


def is_full(error: OSError) -> bool:
    """Whether the disk, or the user's share of it, is full."""
    return error.errno in _FULL


def more_megabytes(done: int, count: int) -> int:
    """How many whole MB `count` bytes add to `done` bytes, for a `Counter` of MB."""
    return (done + count) // MB - done // MB


def sha256(path: Path) -> str:
    """SHA-256 of a file's content, 64 hexadecimal digits; shows how far it is where that takes long."""
    size, done, digest = path.stat().st_size, 0, hashlib.sha256()
    with path.open("rb") as file:
        if size < _LONG:
            return hashlib.file_digest(file, "sha256").hexdigest()
        with Counter(size // MB, f"check {path.name.removesuffix('.partial')}", "MB") as counter:
            while block := file.read(_BLOCK):
                digest.update(block)
                counter.update(more_megabytes(done, len(block)))
                done += len(block)
    return digest.hexdigest()


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


@contextlib.contextmanager
def lock(path: Path, name: str) -> Iterator[None]:
    """As `files.locked`; who waits is told for the download of what."""
    with locked(path, lambda: _LOG.warning("%s: another process downloads it; waiting", name)):
        yield
