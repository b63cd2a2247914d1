"""Published data sets from the web to where training looks for them.

python -m c2am_jax.data.download lvis_v1        (or lvis_v05, coco; both splits, with the pictures, into data/)

lvis_v1 and coco take 20 GB, and 40 GB while train2017.zip is unpacked. The three data sets share COCO's pictures. An
interrupted download resumes where it stopped, and what is there already is not fetched again.
C2AM_DATA_SOURCES=FILE.toml replaces addresses (c2am_jax/data/archives.toml has the form).
"""

import argparse
import contextlib
import dataclasses
import os
import shlex
import shutil
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from c2am_jax import downloads
from c2am_jax.data import archives, unpack
from c2am_jax.data.archives import Archive, Published
from c2am_jax.errors import UserError, guarded
from c2am_jax.files import is_remote

if TYPE_CHECKING:
    from c2am_jax.data.settings import DataSettings

SPLITS = ("train", "val")
# What trains on each of them.
TRAINING = {
    "lvis_v1": "--config maskrcnn_r50_c2am",
    "lvis_v05": "--config maskrcnn_r50_c2am:v05",
    "coco": "--config maskrcnn_r50_ce --config.data.name=coco --config.model.num_classes=80 --workdir runs/coco",
}


@dataclasses.dataclass(frozen=True)
class Part:
    """One thing that training reads: the json of a split, or a folder of pictures; `archive` has it."""

    archive: Archive
    target: Path
    pictures: bool

    @property
    def missing_bytes(self) -> int:
        """About how much is still to be unpacked."""
        partial = unpack.unfinished(self.target)
        there = sum(file.stat().st_size for file in partial.rglob("*")) if self.pictures and partial.is_dir() else 0
        return max(self.archive.bytes_unpacked(pictures=self.pictures) - there, 0)


@guarded
def main(arguments: list[str] | None = None) -> int:
    """Fetch what is not there of one data set, unpack it, and print what to do with it; returns the exit status."""
    sets = archives.sets()
    parser = argparse.ArgumentParser(
        prog="python -m c2am_jax.data.download",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("dataset", choices=sets, help="; ".join(f"{name}: {it.what}" for name, it in sets.items()))
    parser.add_argument("--out", default="data", help="folder of data sets, config.data.dir; default: data")
    parser.add_argument("--split", choices=SPLITS, help="default: both")
    parser.add_argument("--annotations_only", action="store_true", help="no pictures")
    parser.add_argument("--images", help="a folder with train2017 and val2017 that is there: linked, not fetched again")
    parser.add_argument("--keep_archives", action="store_true", help="in OUT/archives; default: deleted once unpacked")
    options = parser.parse_args(arguments)
    if options.images and options.annotations_only:
        parser.error("--images names pictures, and --annotations_only wants none")
    if is_remote(options.out):
        raise UserError(f"--out {options.out}: data is downloaded into a local folder")
    from c2am_jax.data.settings import DataSettings  # with TFDS: not for --help

    published, data = sets[options.dataset], DataSettings(options.dataset, options.out)
    splits = [options.split] if options.split else list(SPLITS)
    with _one_line(Path(options.out)):
        Path(options.out).mkdir(parents=True, exist_ok=True)
        with downloads.lock(Path(options.out, ".download.lock"), options.dataset):
            pictures = None if options.annotations_only else _pictures_folder(data, options.images, splits, published)
            _make_complete(_parts(data, published, splits, pictures), options, published)
            if pictures:
                _link(_standard(data, "train")[1], pictures)
    for line in _what_now(data, published, splits, options.annotations_only):
        print(line)
    return 0


def _standard(data: "DataSettings", split: str) -> tuple[Path, Path]:
    from c2am_jax.data import datasets  # which imports TFDS: not for --help

    return datasets.sources(data, split)


def _pictures_folder(data: "DataSettings", given: str | None, splits: Sequence[str], published: Published) -> Path:
    """The folder that has COCO's folders of pictures, or will have them: one for all three data sets.

    Raises:
      UserError: --images without these folders, or beside others that are there.
    """
    own = _standard(data, "train")[1]
    if own.is_symlink() and not own.exists():
        raise UserError(f"{own} is a link to a folder that is not there: delete the link")
    if given:
        if own.exists() and not (Path(given).is_dir() and own.samefile(given)):
            raise UserError(f"{own} is there already, and --images names {given}: leave out one of the two")
        for name in dict.fromkeys(name for split in splits for name in getattr(published, split)["pictures"]):
            folder = Path(given, name.removesuffix(".zip"))
            if not folder.is_dir():
                raise UserError(f"--images {given}: no folder {folder} there; without --images it is downloaded")
        return Path(given)
    others = [_standard(dataclasses.replace(data, name=name), "train")[1] for name in ("coco", *TRAINING)]
    return next((folder for folder in (own, *others) if folder.is_dir()), others[0])


def _parts(data: "DataSettings", published: Published, splits: Sequence[str], pictures: Path | None) -> list[Part]:
    """All that the splits need, in the order of unpacking: training does not start before its json is there."""
    known = archives.archives()
    found = []
    for split in splits if pictures else ():
        for archive in (known[name] for name in getattr(published, split)["pictures"]):
            found.append(Part(archive, Path(pictures or "", archive.folder), True))
    found.sort(key=lambda part: part.archive.bytes_packed)
    for split in splits:
        found.append(Part(known[getattr(published, split)["annotations"]], _standard(data, split)[0], False))
    return list(dict.fromkeys(found))


def _make_complete(parts: Sequence[Part], options: argparse.Namespace, published: Published) -> None:
    """Fetch and unpack what is not there.

    Raises:
      UserError: no room, not to be had, damaged.
    """
    missing: dict[Archive, list[Part]] = defaultdict(list)
    for part in parts:
        if _is_there(part):
            print(f"{part.target} is there", flush=True)
        else:
            missing[part.archive].append(part)
    if not missing:
        return
    store = Path(options.out, "archives")
    _check_room(missing, store, options)
    store.mkdir(exist_ok=True)
    for archive in sorted(missing, key=lambda archive: archive.bytes_packed):
        _fetch(archive, store, published)
    for archive, of_archive in missing.items():
        for part in of_archive:
            part.target.parent.mkdir(parents=True, exist_ok=True)
            if part.pictures:
                unpack.unpack_folder(store / archive.name, part.target, archive.pictures)
            else:
                unpack.unpack_file(store / archive.name, part.target)
            print(f"unpacked {part.target}", flush=True)
        if not options.keep_archives:
            (store / archive.name).unlink()
    with contextlib.suppress(OSError):  # archives of another data set are in it
        store.rmdir()


def _is_there(part: Part) -> bool:
    """Raises UserError if a folder has fewer pictures than it should have."""
    if not part.pictures:
        return part.target.is_file()
    if not part.target.is_dir():
        return False
    with os.scandir(part.target) as entries:
        count = sum(1 for _ in entries)
    if count < part.archive.pictures:
        raise UserError(
            f"{part.target} has {count:,} of the {part.archive.pictures:,} pictures of {part.archive.name}: move it "
            "away, and the same command fetches it again, or put the missing ones into it"
        )
    return True


def _check_room(missing: dict[Archive, list[Part]], store: Path, options: argparse.Namespace) -> None:
    """Raises UserError unless the disks hold the archives and, one after the other, what they unpack to."""
    now: dict[int, int] = defaultdict(int)
    most: dict[int, int] = defaultdict(int)
    places: dict[int, Path] = {}

    def add(place: Path, size: int) -> None:
        while not place.exists():
            place = place.parent
        device = place.stat().st_dev
        places.setdefault(device, place)
        now[device] += size
        most[device] = max(most[device], now[device])

    for archive in missing:
        there = next((file for file in (store / archive.name, _partial(archive, store)) if file.is_file()), None)
        add(store, max(archive.bytes_packed - (there.stat().st_size if there else 0), 0))
    for archive, parts in missing.items():
        for part in parts if parts[0].pictures else parts[:1]:  # the guess is for all json files of an archive
            add(part.target, part.missing_bytes)
        if not options.keep_archives:
            add(store, -archive.bytes_packed)
    for device, place in places.items():
        free = shutil.disk_usage(place).free
        if most[device] > free:
            raise UserError(
                f"{place}: {options.dataset} needs {most[device] / 1e9:.1f} GB more there, archives and what they "
                f"unpack to, and {free / 1e9:.1f} GB are free: free some space, or name a folder on another disk with "
                "--out DIR (then train with --config.data.dir=DIR)"
            )


def _fetch(archive: Archive, store: Path, published: Published) -> None:
    """The archive is in `store`, whole and verified. Raises UserError; OSError if there is no space."""
    path, partial = store / archive.name, _partial(archive, store)
    if path.is_file():
        _verify(archive, path)
        return
    there = f", {partial.stat().st_size / 1e6:.0f} MB of them are there" if partial.is_file() else ""
    print(f"{archive.name}: {archive.bytes_packed / 1e6:.0f} MB from {archive.url}{there}", flush=True)
    try:
        wanted = downloads.Wanted(archive.name, archive.url, archive.sha256, archive.size or None)
        downloads.download(wanted, partial)
    except downloads.Failed as error:
        raise UserError(
            f"{archive.name} could not be downloaded: {archive.url}: {error}. Or get it on another machine "
            f"({published.page}), put it to {path}, and run the same command again"
        ) from None
    partial.replace(path)


def _verify(archive: Archive, path: Path) -> None:
    """Raises UserError if an archive that was there already is not the published one."""
    size, problem = path.stat().st_size, ""
    if archive.size not in (0, size):
        problem = f"it has {size} bytes instead of {archive.size}"
    elif archive.sha256 and (found := downloads.sha256(path)) != archive.sha256:
        problem = f"it has the SHA-256 {found} instead of {archive.sha256}"
    if problem:
        raise UserError(f"{path}: {problem}: delete it, and the same command fetches it again")


def _partial(archive: Archive, store: Path) -> Path:
    return store / f"{archive.name}.partial"


def _link(own: Path, pictures: Path) -> None:
    """`own`, where training looks for pictures, leads to the folder that has them."""
    if own.exists():
        return
    own.parent.mkdir(parents=True, exist_ok=True)
    target, above = pictures.resolve(), own.parent.resolve()
    beside = target.is_relative_to(above.parent)  # both in --out, which may be moved
    try:
        own.symlink_to(os.path.relpath(target, above) if beside else target, target_is_directory=True)
    except OSError as error:
        raise UserError(f"{own}: no link can be made ({error}); train with --config.data.images={target}") from None
    print(f"{own} links to {target}")


def _what_now(
    data: "DataSettings", published: Published, splits: Sequence[str], annotations_only: bool
) -> Iterator[str]:
    """The last lines: what is there, its terms, and the command that trains on it, or what that still needs."""
    yield f"{published.what} is there ({', '.join(splits)}); {published.page} has its terms"
    pictures = _standard(data, "train")[1]
    parts = {split: _parts(data, published, [split], pictures) for split in SPLITS}
    wanting = [split for split, own in parts.items() if not all(part.target.exists() for part in own)]
    if not wanting:
        folder = "" if data.dir == "data" else f" --config.data.dir={shlex.quote(data.dir)}"
        yield f"train with: python -m c2am_jax.train {TRAINING[data.name]}{folder}"
    elif annotations_only:
        yield "its pictures are not: the same command without --annotations_only fetches them"
    else:
        yield f"training needs the other split too: the same command with --split {wanting[0]}"


@contextlib.contextmanager
def _one_line(out: Path) -> Iterator[None]:
    """What the disk says becomes one line that says what to do."""
    try:
        yield
    except OSError as error:
        if downloads.is_full(error):
            text = f"{out}: the disk is full ({error.strerror}): free some space and run the same command again; or"
        else:
            text = f"{error.filename or out}: {error.strerror or error};"
        raise UserError(f"{text} name another folder with --out DIR") from None


if __name__ == "__main__":
    sys.exit(main())
