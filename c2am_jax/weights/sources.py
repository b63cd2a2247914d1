"""Published weights by name: the table ``sources.toml``, and a table of the user's beside it."""

import dataclasses
import hashlib
import os
import re
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from c2am_jax.errors import UserError
from c2am_jax.weights.foreign import SUFFIXES

TABLE = Path(__file__).with_name("sources.toml")
VARIABLE = "C2AM_WEIGHTS_SOURCES"
_KEYS = {"url", "sha256", "sha256_prefix", "size"}


@dataclasses.dataclass(frozen=True)
class RemoteFile:
    """One file that can be downloaded.

    Attributes:
      url: where it is.
      cached: its name in the cache.
      sha256: of its content, whole or its first digits; "" if nobody says it.
      size: in bytes, None if nobody says it.
    """

    url: str
    cached: str
    sha256: str = ""
    size: int | None = None


@dataclasses.dataclass(frozen=True)
class Source:
    """Weights with a name: `files` hold the same ones and are tried in order; `licence` is theirs."""

    name: str
    files: tuple[RemoteFile, ...]
    what: str = ""
    licence: str = ""


def is_remote(text: str) -> bool:
    """Whether it is an address, or has the form of a name of the table (``imagenet:resnet50``) and is no file here."""
    named = re.fullmatch(r"[a-z0-9_]+:[\w.+-]+", text) is not None
    return "://" in text or (named and not Path(text).exists())


def find(name: str) -> Source:
    """The source of a name, or of a URL, whose end ``#sha256=DIGITS`` may say its checksum.

    Raises:
      UserError: an unknown name, an address that is not http, or a table that cannot be read.
    """
    if "://" in name:
        return _of_url(name)
    known = table()
    if name not in known:
        raise UserError(f"no weights are known as {name}; there are {', '.join(sorted(known))}")
    return known[name]


def table() -> dict[str, Source]:
    """All sources by name. Raises UserError if the table that C2AM_WEIGHTS_SOURCES names cannot be read."""
    entries = tomllib.loads(TABLE.read_text("utf-8"))
    found = {name: _source(name, entry) for name, entry in entries.items()}
    if given := os.environ.get(VARIABLE):
        try:
            entries = tomllib.loads(Path(given).read_text("utf-8"))
            found |= {name: _source(name, entry) for name, entry in entries.items()}
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise UserError(f"{VARIABLE}={given}: not a table of weights ({error}); {TABLE} shows the form") from None
    return found


def _source(name: str, entry: dict[str, Any]) -> Source:
    files = []
    for file in entry["files"]:
        if unknown := set(file) - _KEYS:
            raise ValueError(f"{name} has the unknown key {sorted(unknown)[0]}")
        digits = file.get("sha256", "") or file.get("sha256_prefix", "")
        cached = f"{re.sub(r'[^a-z0-9]+', '_', name.lower())}-{_last_part(file['url'])}"
        files.append(RemoteFile(_http(file["url"]), cached, _checksum(digits, file["url"]), file.get("size")))
    if not files:
        raise ValueError(f"{name} has no files")
    return Source(name, tuple(files), entry.get("what", ""), entry.get("licence", ""))


def _of_url(text: str) -> Source:
    url, _, fragment = text.partition("#")
    if not urlsplit(url).path.endswith(SUFFIXES):
        raise UserError(f"{url}: weights come as {', '.join(SUFFIXES)}")
    digits = fragment.removeprefix("sha256=") if fragment.startswith("sha256=") else ""
    cached = f"{hashlib.sha256(url.encode()).hexdigest()[:8]}-{_last_part(url)}"  # names of two sites may be the same
    return Source(url, (RemoteFile(_http(url), cached, _checksum(digits, url)),))


def _http(url: str) -> str:
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).netloc:
        raise UserError(f"{url}: weights are downloaded from https:// and http:// addresses")
    return url


def _checksum(digits: str, url: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{8,64}|", digits):
        raise UserError(f"{url}: sha256 {digits!r} is not 8 to 64 hexadecimal digits")
    return digits


def _last_part(url: str) -> str:
    return re.sub(r"[^\w.+-]", "_", unquote(urlsplit(url).path).rpartition("/")[2]) or "weights"
