"""Files that are whole or not there, whenever the process is killed."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from etils import epath


@contextlib.contextmanager
def replacing(path: epath.Path | Path) -> Iterator[epath.Path]:
    """A name beside `path`, with its suffix, to write to; it becomes `path` at the end, or goes if an error comes."""
    place = epath.Path(path)
    partial = place.parent / f"{place.stem}.{os.getpid()}.partial{place.suffix}"
    try:
        yield partial
        partial.replace(place)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def replace_text(path: epath.Path | Path, text: str) -> None:
    """Write a small file, local or remote: a kill leaves the old or the new text, never half of it."""
    with replacing(path) as partial:
        partial.write_text(text)
