"""Prepared data of a bucket on this machine: copied once, in parallel, checked, and resumed where it was cut off.

The copies lie in the folder ``data`` of the cache (`files.cache_folder`), by the bucket's and the folder's names. One
process of a machine copies, the others wait for it.
"""

import concurrent.futures
import functools
import json
import logging
import shutil
import threading
import time
from pathlib import Path

from c2am_jax import downloads
from c2am_jax.downloads import MB, PAUSES
from c2am_jax.files import cache_folder, replace_text
from c2am_jax.progress import Counter
from c2am_jax.storage import Object, StorageError, crc32c, objects, read_range
from c2am_jax.wording import counted

_LOG = logging.getLogger(__name__)
FILES_AT_ONCE = 8
BLOCK = 16 * MB  # bytes of a request
CHECKED = "checked.json"  # beside the copies: which version each file is, and its size and time as it was checked


@functools.cache
def local_copy(folder: str, name: str) -> Path:
    """A local folder with the files of a remote one, as they are there now.

    A file that is here already is left alone if it has the size and the time with which it was checked, and the bucket
    still has that version; else its checksum decides. A process asks the bucket once.

    Args:
      folder: the remote one (gs://).
      name: of the data set, for lines and progress.

    Raises:
      StorageError: there is no such folder, it cannot be read, a file arrives damaged twice, or the disk is too small.
    """
    there = {file: about for file, about in objects(folder).items() if not file.startswith("parts/")}
    if not there:
        raise StorageError(f"{folder}: nothing is there")
    place = cache_folder("data") / folder.replace("://", "/")
    try:
        place.mkdir(parents=True, exist_ok=True)
        with downloads.lock(place.with_name(f"{place.name}.lock"), name):
            _Copy(folder, place, name).bring(there)
    except OSError as error:
        full = f"{place}: the disk is full: free some space or set C2AM_CACHE to a folder elsewhere"
        other = f"{place}: {error.strerror or error}; set C2AM_CACHE to another folder"
        raise StorageError(full if downloads.is_full(error) else other) from None
    return place


class _Copy:
    """The copy of one folder; files that are on their way lie in a folder beside it."""

    def __init__(self, source: str, place: Path, name: str):
        self._source, self._place, self._name = source, place, name
        self._partial = place.with_name(f"{place.name}.partial")
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._record = place.with_name(f"{place.name}.{CHECKED}")
        self._checked: dict[str, list[int]] = _read(self._record)

    def bring(self, there: dict[str, Object]) -> None:
        """Make the copy what `there` says."""
        for left in (path for path in self._place.rglob("*") if path.is_file()):
            if left.relative_to(self._place).as_posix() not in there:
                left.unlink()
        missing = {file: about for file, about in there.items() if not self._whole(file, about)}
        parts = {f"{file.replace('/', '_')}.{about.generation}": file for file, about in missing.items()}
        if not missing:
            shutil.rmtree(self._partial, ignore_errors=True)
            return
        self._partial.mkdir(exist_ok=True)
        for left in self._partial.iterdir():
            if left.name not in parts:
                left.unlink()
        begun = sum(left.stat().st_size for left in self._partial.iterdir())
        size = sum(about.size for about in missing.values())
        free = shutil.disk_usage(self._partial).free
        if size - begun > free:
            raise StorageError(
                f"{self._place}: {(size - begun) / 1e9:.1f} GB of {self._name} are to be copied here and "
                f"{free / 1e9:.1f} GB are free: free some space or set C2AM_CACHE to a folder elsewhere"
            )
        went_on = f", from {begun / MB:.0f} MB on" if begun else ""
        count = counted(len(missing), "file")
        _LOG.info(
            "%s: copying %s, %.0f MB, from %s to %s%s", self._name, count, size / MB, self._source, self._place, went_on
        )
        with Counter(-(-size // MB), f"copy {self._name}", "MB", initial=begun // MB) as counter:
            self._all(missing, {file: self._partial / part for part, file in parts.items()}, counter, begun)
        shutil.rmtree(self._partial)

    def _all(self, missing: dict[str, Object], parts: dict[str, Path], counter: Counter, done: int) -> None:
        def grew(count: int) -> None:
            nonlocal done
            with self._lock:
                counter.update(downloads.more_megabytes(done, count))
                done += count

        with concurrent.futures.ThreadPoolExecutor(FILES_AT_ONCE) as pool:
            try:
                waiting = [pool.submit(self._one, file, about, parts[file], grew) for file, about in missing.items()]
                for future in concurrent.futures.as_completed(waiting):
                    future.result()
            except BaseException:
                self._stop.set()  # those on their way end after their block
                pool.shutdown(wait=True, cancel_futures=True)
                raise

    def _one(self, file: str, about: Object, part: Path, grew) -> None:
        """Copy a file; a copy that is not what the bucket has is made once more."""
        for tries in (1, 2):
            self._fill(file, about, part, grew)
            if self._stop.is_set():
                return
            if crc32c(part) == about.crc32c:
                break
            part.unlink()
            if tries == 2:
                raise StorageError(
                    f"{self._source}/{file}: what arrives has another checksum than the bucket says, twice: run the "
                    "same command again, or put the file there again"
                )
            _LOG.warning("%s/%s arrived damaged: it is copied again", self._source, file)
        target = self._place / file
        target.parent.mkdir(parents=True, exist_ok=True)
        part.replace(target)
        self._note(file, about)

    def _fill(self, file: str, about: Object, part: Path, grew) -> None:
        """The rest of a file, block by block; a block that does not come is asked for again, with pauses."""
        with part.open("ab") as out:
            pauses = iter(PAUSES)
            while (begin := out.tell()) < about.size and not self._stop.is_set():
                end = min(begin + BLOCK, about.size)
                try:
                    block = read_range(f"{self._source}/{file}", about.generation, begin, end)
                    if len(block) != end - begin:
                        raise StorageError(f"{self._source}/{file}: the connection broke off")
                except StorageError as error:
                    pause = next(pauses, None)
                    if pause is None:
                        raise StorageError(f"{error}; run the same command again to resume from there") from None
                    _LOG.warning("%s; trying again in %g s", error, pause)
                    time.sleep(pause)
                    continue
                pauses = iter(PAUSES)
                out.write(block)
                out.flush()
                grew(len(block))

    def _whole(self, file: str, about: Object) -> bool:
        """Whether the copy here is the bucket's file."""
        path = self._place / file
        if not path.is_file():
            return False
        stat = path.stat()
        if self._checked.get(file) == [about.generation, stat.st_size, stat.st_mtime_ns]:
            return True
        if stat.st_size == about.size and crc32c(path) == about.crc32c:
            self._note(file, about)
            return True
        _LOG.warning("%s is not (any more) the file that %s has: it is copied again", path, self._source)
        path.unlink()
        return False

    def _note(self, file: str, about: Object) -> None:
        stat = (self._place / file).stat()
        with self._lock:
            self._checked[file] = [about.generation, stat.st_size, stat.st_mtime_ns]
            replace_text(self._record, json.dumps(self._checked))


def _read(record: Path) -> dict[str, list[int]]:
    try:
        return dict(json.loads(record.read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return {}
