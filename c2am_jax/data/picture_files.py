"""Which picture files a command is asked for: named ones, whole folders, or those that a json lists."""

import dataclasses
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from c2am_jax.data.entries import image_fault
from c2am_jax.data.json_stream import open_json, read_lists
from c2am_jax.data.lvis import AnnotationError, ImageNotFound, image_file

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
JPEG_SUFFIXES = (".jpg", ".jpeg")


@dataclasses.dataclass(frozen=True)
class PictureFile:
    """A picture file to work on.

    Attributes:
      image_id: in results.
      path: where it is.
      drawing: path of its drawing below the folder of drawings; no two files have the same.
      hw: height and width that a json says; None if no json does.
    """

    image_id: int
    path: Path
    drawing: Path
    hw: tuple[int, int] | None = None


def named_pictures(inputs: Sequence[str], out: Path) -> tuple[list[PictureFile], list[str]]:
    """The picture files that arguments name, folders with all their subfolders in natural order.

    Hidden subfolders and `out`, where drawings of an earlier call may be, are left out. Ids are the numbers that the
    files are named by, as in COCO and LVIS, if all are, else 1, 2, 3 and so on.

    Args:
      inputs: files and folders.
      out: folder of the drawings.

    Returns:
      Files, each once, and what is wrong with arguments that name none.
    """
    found: dict[Path, Path] = {}  # file -> folder of its drawing below `out`
    faults = []
    for name in inputs:
        path = Path(name)
        if path.is_dir():
            inside = list(_walk(path, {out.resolve()} - {path.resolve()}))
            for file in inside:
                found.setdefault(file, file.relative_to(path).parent)
            if not inside:
                kinds = ", ".join(sorted(SUFFIXES))
                faults.append(f"{path}: no picture in this folder and its subfolders ({kinds})")
        elif path.is_file():
            found.setdefault(path, Path())
        else:
            faults.append(f"{path}: no such file or folder")
    numbers = [int(path.stem) for path in found if re.fullmatch(r"[0-9]{1,15}", path.stem)]
    ids = numbers if len(set(numbers)) == len(found) else range(1, len(found) + 1)
    drawings = _Drawings()
    files = [PictureFile(i, path, drawings.name(path, found[path])) for i, path in zip(ids, found, strict=True)]
    return files, faults


def listed_pictures(annotations: str, folder: str) -> tuple[list[PictureFile], list[str]]:
    """The pictures that a json of the LVIS or COCO layout lists, in its order and with its image ids.

    Args:
      annotations: the json; only its list `images` is looked at.
      folder: of the pictures, where `lvis.image_file` finds them.

    Returns:
      Files, and what is wrong with entries of `images` that lead to none.

    Raises:
      AnnotationError: no json, or no entry in its list `images`.
    """
    files: dict[int, PictureFile] = {}
    faults = []
    drawings = _Drawings()

    def take(image: Any, offset: int, _: int) -> None:
        fault = image_fault(image)
        if fault:
            faults.append(f"{annotations}: image at byte {offset}: {fault}")
        elif image["id"] in files:
            faults.append(f"{annotations}: image {image['id']} is listed twice; the first one counts")
        else:
            try:
                path = Path(image_file(image, folder))
            except ImageNotFound as error:
                faults.append(str(error))
                return
            inside = path.relative_to(folder).parent
            hw = image["height"], image["width"]
            files[image["id"]] = PictureFile(image["id"], path, drawings.name(path, inside), hw)

    with open_json(annotations) as file:
        listed, _ = read_lists(file, annotations, {"images": take})
    if not listed.get("images"):
        raise AnnotationError(f"{annotations}: no list 'images', or an empty one: it names no picture")
    return list(files.values()), faults


def _walk(folder: Path, seen: set[Path]) -> Iterator[Path]:
    """Picture files below a folder, its own before those of its subfolders; linked folders too, each folder once.

    `seen`: folders to leave out, to which those that were walked are added.
    """
    seen.add(folder.resolve())
    yield from sorted((p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file()), key=_natural)
    for inside in sorted((p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")), key=_natural):
        if inside.resolve() not in seen:
            yield from _walk(inside, seen)


def _natural(path: Path) -> list[Any]:
    """Sorts frame_2 before frame_10."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", path.name)]


class _Drawings:
    """Names of drawings: those of the pictures, with a number where two are equal."""

    def __init__(self):
        self._taken: set[Path] = set()

    def name(self, picture: Path, folder: Path) -> Path:
        suffix = ".jpg" if picture.suffix.lower() in JPEG_SUFFIXES else ".png"
        name, copy = folder / f"{picture.stem}{suffix}", 2
        while name in self._taken:
            name, copy = folder / f"{picture.stem}_{copy}{suffix}", copy + 1
        self._taken.add(name)
        return name
