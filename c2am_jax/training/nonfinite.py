"""The batch of a step that was not finite, kept for `c2am_jax.training.replay`."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np

from c2am_jax.errors import UserError
from c2am_jax.files import as_path
from c2am_jax.storage import local_file, worked_on
from c2am_jax.structures import Batch


def write_batch(workdir: Path, step: int, stream: Iterator[tuple[tuple[int, int], Batch]]) -> str:
    """Write this process's part of the batch of `step`, the next one of `stream`; returns what to do with the file."""
    bucket, batch = next(stream)
    folder = as_path(workdir) / "nonfinite"
    part = f"_part{jax.process_index()}" if jax.process_count() > 1 else ""
    path = folder / f"step_{step}{part}.npz"
    arrays = {field.name: np.asarray(getattr(batch, field.name)) for field in dataclasses.fields(batch)}
    first = jax.process_index() * len(batch.image_id)
    with worked_on(folder) as place:
        np.savez_compressed(place / path.name, step=step, bucket=np.array(bucket), first=first, **arrays)
    return f"look at the batch with python -m c2am_jax.training.replay {path}"


def read_batch(path: Path) -> tuple[int, tuple[int, int], int, Batch]:
    """Step, bucket, position of the first image in the global batch, and batch that `write_batch` wrote.

    Raises:
      UserError: no such file, or one of another form.
    """
    try:
        with local_file(path) as local, np.load(local, allow_pickle=False) as file:
            fields = {field.name: file[field.name] for field in dataclasses.fields(Batch)}
            height, width = (int(side) for side in file["bucket"])
            return int(file["step"]), (height, width), int(file["first"]), Batch(**fields)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (KeyError, ValueError, OSError, EOFError) as error:
        raise UserError(f"{path}: not a batch that training wrote: {error}") from None
