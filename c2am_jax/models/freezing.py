"""Which parameters train: everything else becomes `Frozen`, as stem and stage 1 of the backbone are."""

import difflib
import fnmatch
from collections.abc import Iterable, Sequence

from flax import nnx

from c2am_jax.models.layers import Frozen


def select(names: Iterable[str], patterns: Sequence[str], *, setting: str) -> set[str]:
    """Names that match any of the patterns, in which ``*`` stands for any text, dots included.

    Args:
      names: dotted names of arrays.
      patterns: such as ``*.fc_cls.*``.
      setting: where the patterns come from, for the message.

    Raises:
      ValueError: a pattern matches nothing; the text lists the nearest names.
    """
    names = sorted(names)
    chosen: set[str] = set()
    for pattern in patterns:
        found = fnmatch.filter(names, pattern)
        if not found:
            near = difflib.get_close_matches(pattern, names, n=3, cutoff=0.0)
            raise ValueError(f"{setting}: {pattern!r} matches no array; the nearest are {', '.join(near)}")
        chosen.update(found)
    return chosen


def freeze_others(model: nnx.Module, trainable: Sequence[str]) -> None:
    """Turn every parameter that no pattern of `trainable` names into a frozen value; () leaves the module as it is.

    Gradients are taken of parameters only, so what lies below the first one that trains has no backward pass.

    Raises:
      ValueError: a pattern matches no parameter that could train.
    """
    if not trainable:
        return
    places = {
        ".".join(map(str, (*path, name))): (module, name)
        for path, module in nnx.iter_modules(model)
        for name, value in vars(module).items()
        if isinstance(value, nnx.Param)
    }
    kept = select(places, trainable, setting="train.trainable")
    for full_name, (module, name) in places.items():
        if full_name not in kept:
            setattr(module, name, Frozen(getattr(module, name)[...]))
