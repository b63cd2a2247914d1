"""Archives of published data sets: the table ``archives.toml``, and a table of the user's that replaces addresses."""

import dataclasses
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict
from urllib.parse import urlsplit

from c2am_jax.errors import UserError

TABLE = Path(__file__).with_name("archives.toml")
VARIABLE = "C2AM_DATA_SOURCES"
# Unpacked bytes for each byte of an archive, rounded up, to ask for room before a download. The json of LVIS packs to
# between a quarter and a third (the four files of its first images: 3.0 to 3.9); JPEGs do not get smaller.
_GROWTH_JSON, _GROWTH_JPEG = 4.0, 1.03


@dataclasses.dataclass(frozen=True)
class Archive:
    """A zip file that can be downloaded.

    Attributes:
      name: of the file.
      url: where it is.
      sha256: of its content, "" if nobody says it.
      size: in bytes, 0 if nobody says it.
      about: a guess at the size, where it is not known.
      pictures: how many it has.
    """

    name: str
    url: str
    sha256: str = ""
    size: int = 0
    about: int = 0
    pictures: int = 0

    @property
    def bytes_packed(self) -> int:
        """Its size as far as it is known."""
        return self.size or self.about

    @property
    def folder(self) -> str:
        """The folder of pictures in it, "train2017" of ``train2017.zip``."""
        return self.name.removesuffix(".zip")

    def bytes_unpacked(self, *, pictures: bool) -> int:
        """About how many bytes its pictures, or the json files in it, have."""
        return int(self.bytes_packed * (_GROWTH_JPEG if pictures else _GROWTH_JSON))


class Split(TypedDict):
    """Names of the archives that a split needs: one with its json, and those with its pictures, the smallest first."""

    annotations: str
    pictures: list[str]


@dataclasses.dataclass(frozen=True)
class Published:
    """A published data set: what it is, the page that tells its terms, and its splits."""

    what: str
    page: str
    train: Split
    val: Split


def sets() -> dict[str, Published]:
    """The data sets by their `config.data.name`."""
    return {name: Published(**entry) for name, entry in _read(TABLE)["sets"].items()}


def archives() -> dict[str, Archive]:
    """All archives by name. Raises UserError if the table that C2AM_DATA_SOURCES names cannot be used."""
    found = {name: Archive(name, **entry) for name, entry in _read(TABLE)["archives"].items()}
    if given := os.environ.get(VARIABLE):
        try:
            found |= _replaced(found, _read(Path(given)))
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise UserError(f"{VARIABLE}={given}: not a table of archives ({error}); {TABLE} shows the form") from None
    return found


def _read(path: Path) -> dict[str, Any]:
    return tomllib.loads(path.read_text("utf-8"))


def _replaced(known: Mapping[str, Archive], table: Mapping[str, Any]) -> dict[str, Archive]:
    if set(table) != {"archives"}:
        raise ValueError('it has tables [archives."NAME"], nothing else')
    found = {}
    for name, entry in table["archives"].items():
        if name not in known:
            raise ValueError(f"no archive {name}; there are {', '.join(known)}")
        changed = dataclasses.replace(known[name], **entry)
        if urlsplit(changed.url).scheme not in ("http", "https") or not urlsplit(changed.url).netloc:
            raise ValueError(f"{name}: {changed.url} is no https:// or http:// address")
        if not re.fullmatch(r"[0-9a-f]{64}|", changed.sha256):
            raise ValueError(f"{name}: sha256 {changed.sha256!r} is not 64 hexadecimal digits")
        if not all(type(number) is int and number >= 0 for number in (changed.size, changed.about, changed.pictures)):
            raise ValueError(f"{name}: size, about and pictures are whole numbers, 0 for unknown")
        found[name] = changed
    return found
