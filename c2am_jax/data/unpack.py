"""Zip archives -> files and folders that are whole or not there.

What is not whole yet has the suffix ``.unpacking``. Files are read in blocks, and each one's CRC is checked.
"""

import contextlib
import errno
import re
import shutil
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from c2am_jax.downloads import MB, more_megabytes
from c2am_jax.errors import UserError
from c2am_jax.progress import Counter
from c2am_jax.wording import counted

_BLOCK = 1 << 20


class BadArchive(UserError):
    """A file that is no whole zip archive, or one that has not what is wanted from it; the text names it."""


def unfinished(target: Path) -> Path:
    """What the target is called until it is whole."""
    return target.with_name(f"{target.name}.unpacking")


def unpack_file(archive: Path, target: Path) -> None:
    """The file of the archive that is called as `target` is, in whatever folder there, becomes `target`.

    Raises:
      BadArchive: no zip, damaged, unsafe names, or no such file in it.
      OSError: no space; nothing stays.
    """
    with _opened(archive) as (zipped, members):
        found = [info for info in members if PurePosixPath(info.filename).name == target.name]
        if len(found) != 1:
            raise BadArchive(f"{archive}: it has {len(found)} files {target.name}, not one")
        _check_room(target.parent, found[0].file_size)
        partial = unfinished(target)
        try:
            with _counter(archive, found[0].file_size) as counter:
                _copy(zipped, found[0], partial, counter, 0)
            partial.replace(target)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


def unpack_folder(archive: Path, target: Path, files: int = 0) -> int:
    """The folder of the archive that is called as `target` is becomes `target`; returns how many files it has.

    An unpacking that was interrupted resumes: files that are there already, whole by size and CRC, are kept.

    Args:
      archive: a zip.
      target: must not be there yet.
      files: how many there should be, 0 if nobody knows.

    Raises:
      BadArchive: no zip, damaged, unsafe names, no such folder in it, or one of another number of files.
      OSError: no space; what was unpacked stays under its unfinished name.
    """
    with _opened(archive) as (zipped, members):
        inside = [info for info in members if PurePosixPath(info.filename).parts[0] == target.name]
        if not inside or files not in (0, len(inside)):
            raise BadArchive(
                f"{archive}: {counted(len(inside), 'file')} in its folder {target.name}, not {files or 'some'}"
            )
        partial = unfinished(target)
        places = [partial.joinpath(*PurePosixPath(info.filename).parts[1:]) for info in inside]
        lacking = [info.file_size for info, place in zip(inside, places, strict=True) if not _has_size(place, info)]
        partial.mkdir(parents=True, exist_ok=True)
        _check_room(partial, sum(lacking))
        done = 0
        with _counter(archive, sum(info.file_size for info in inside)) as counter:
            for info, place in zip(inside, places, strict=True):
                if _is_whole(place, info):
                    counter.update(more_megabytes(done, info.file_size))
                else:
                    place.parent.mkdir(parents=True, exist_ok=True)
                    _copy(zipped, info, place, counter, done)
                done += info.file_size
        partial.rename(target)
    return len(inside)


@contextlib.contextmanager
def _opened(archive: Path) -> Iterator[tuple[zipfile.ZipFile, list[zipfile.ZipInfo]]]:
    """The archive and the files in it; whatever is wrong with it is a BadArchive."""
    try:
        with zipfile.ZipFile(archive) as zipped:
            members = [info for info in zipped.infolist() if not info.is_dir()]
            for info in members:
                path = PurePosixPath(info.filename)
                if path.is_absolute() or ".." in path.parts or re.search(r"\\|^[A-Za-z]:", info.filename):
                    raise BadArchive(f"{archive}: its file {info.filename!r} leads out of the folder: not unpacked")
            yield zipped, [info for info in members if PurePosixPath(info.filename).parts]
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise BadArchive(f"{archive}: not a whole zip archive ({error}): delete it and run the command again") from None


def _copy(zipped: zipfile.ZipFile, info: zipfile.ZipInfo, place: Path, counter: Counter, done: int) -> None:
    """Unpack one file; `done` bytes were unpacked before. The CRC is checked at its end, by zipfile."""
    with zipped.open(info) as source, place.open("wb") as out:
        while block := source.read(_BLOCK):
            out.write(block)
            counter.update(more_megabytes(done, len(block)))
            done += len(block)


def _has_size(place: Path, info: zipfile.ZipInfo) -> bool:
    return place.is_file() and place.stat().st_size == info.file_size


def _is_whole(place: Path, info: zipfile.ZipInfo) -> bool:
    if not _has_size(place, info):
        return False
    crc = 0
    with place.open("rb") as file:
        while block := file.read(_BLOCK):
            crc = zlib.crc32(block, crc)
    return crc == info.CRC


def _counter(archive: Path, size: int) -> Counter:
    return Counter(size // MB, f"unpack {archive.name}", "MB")


def _check_room(folder: Path, missing: int) -> None:
    free = shutil.disk_usage(folder).free
    if missing > free:
        raise OSError(errno.ENOSPC, f"{missing / 1e6:.0f} MB more are needed and {free / 1e6:.0f} MB are free")
