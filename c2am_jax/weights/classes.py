"""Initial weights of other classes: the rows of classes go by name.

A detector's class-dependent arrays are its classifiers, and box regressions and mask predictors that are not class
agnostic. In PyTorch's layout the class is the first axis of all of them: [C, D] with background behind the classes,
[4 K, D], [K, C, 1, 1].
"""

import dataclasses
import functools
import re
from collections.abc import Mapping, Sequence

import numpy as np

from c2am_jax.errors import UserError, first_of
from c2am_jax.wording import noun

Arrays = dict[str, np.ndarray]

_OF_CLASSES = re.compile(r"\.(fc_cls|fc_reg|conv_logits|cls_extra)\.")
_listed = functools.partial(first_of, most=5)


@dataclasses.dataclass(frozen=True)
class ByName:
    """Arrays whose rows have the order of this run's classes.

    Attributes:
      arrays: under MMDetection's names, in PyTorch's layout; those that cannot be taken over are not among them.
      random: names of arrays in which some rows are random, or that were left out.
      note: what was done in one line, "" if nothing had to be done.
    """

    arrays: Arrays
    random: frozenset[str] = frozenset()
    note: str = ""


def by_name(
    arrays: Mapping[str, np.ndarray],
    own: Mapping[str, np.ndarray],
    theirs: Sequence[str],
    ours: Sequence[str],
    *,
    source: str,
    reset_classifier: bool = False,
) -> ByName:
    """Take the rows of classes over by the classes' names.

    The same names in the same order change nothing. If the source knows all classes of this run, its rows are put into
    this run's order. Else classes that it does not know start random, where that was asked for. Arrays whose rows are
    not the classes (those of BAGS, or what a method keeps beside the classifier) cannot be sorted: they are taken for
    the same classes in the same order only.

    Args:
      arrays: of the source, under MMDetection's names, in PyTorch's layout.
      own: the new detector's arrays, likewise; their rows are what is random.
      theirs: names of the source's classes, () if it does not say them: then nothing is done.
      ours: names of this run's classes, () if there are none: likewise.
      source: for messages.
      reset_classifier: let classes that the source does not know, and arrays that cannot be sorted, start random.

    Raises:
      UserError: classes that the source does not know, or arrays that cannot be sorted, without `reset_classifier`.
    """
    dependent = [name for name in arrays if name in own and _OF_CLASSES.search(name)]
    if not theirs or not ours or tuple(theirs) == tuple(ours) or not dependent:
        return ByName(dict(arrays))
    place = _unique(theirs)
    known = {k: place[name] for name, k in _unique(ours).items() if name in place}  # our class -> theirs
    unknown = [name for k, name in enumerate(ours) if k not in known]
    if unknown and not reset_classifier:
        raise UserError(
            f"{source}: {len(unknown)} of this run's {len(ours)} {noun(len(ours), 'class')} "
            f"{noun(len(unknown), 'is', 'are')} not among its {len(theirs)}: {_listed(unknown)} "
            f"(it has {_listed(theirs)}); --config.train.reset_classifier=True keeps the rows of "
            f"the {len(known)} {noun(len(known), 'class')} that both have and starts the others at random"
        )
    found, random, whole = dict(arrays), set(), []
    for name in dependent:
        rows = _rows(name, arrays[name], own[name], len(theirs), len(ours))
        if rows is not None:
            found[name] = _taken(arrays[name], own[name], known, *rows, len(theirs))
            random |= {name} if unknown else set()
        elif arrays[name].shape[:1] != own[name].shape[:1] or not _agnostic(name, own[name]):
            whole.append(name)
    # Groups and trees of classes are whole numbers, facts of this run's own data: there is nothing to take over.
    facts = [name for name in arrays if name in own and np.issubdtype(own[name].dtype, np.integer)]
    whole = [name for name in whole if name not in facts]
    if whole and not reset_classifier:
        raise UserError(
            f"{source}: the rows of {_listed(whole)} are not classes, and its classes have another order than this "
            "run's: --config.train.reset_classifier=True starts them at random"
        )
    for name in (*whole, *facts):
        found.pop(name, None)
    of_ours = f"{noun(len(ours), 'class')} {noun(len(known), 'is', 'are')}"
    note = f"{len(known)} of {len(ours)} {of_ours} among its {len(theirs)}, their rows are taken by name"
    note += f"; {len(unknown)} {noun(len(unknown), 'starts', 'start')} random: {_listed(unknown)}" if unknown else ""
    note += f"; {_listed(whole)} {noun(len(whole), 'starts', 'start')} random" if whole else ""
    return ByName(found, frozenset(random | {*whole}), note)


def _unique(names: Sequence[str]) -> dict[str, int]:
    """Class by name; a name that several classes have names none of them."""
    return {name: k for k, name in enumerate(names) if names.count(name) == 1}


def _agnostic(name: str, value: np.ndarray) -> bool:
    """Whether box regression or mask predictor is one for all classes."""
    return (".fc_reg." in name and len(value) == 4) or (".conv_logits." in name and len(value) == 1)


def _rows(name: str, theirs: np.ndarray, own: np.ndarray, classes: int, own_classes: int) -> tuple[int, int] | None:
    """Rows of each class, and rows behind those of all classes (background); None if rows are not the classes."""
    if ".cls_extra." in name or theirs.ndim == 0 or theirs.shape[1:] != own.shape[1:]:
        return None
    each = 4 if ".fc_reg." in name else 1
    behind, own_behind = len(theirs) - each * classes, len(own) - each * own_classes
    most = 2 if ".fc_cls." in name else 0  # background, or objectness and background (Seesaw)
    return (each, behind) if behind == own_behind and 0 <= behind <= most else None


def _taken(
    theirs: np.ndarray, own: np.ndarray, known: Mapping[int, int], each: int, behind: int, classes: int
) -> np.ndarray:
    """`own` with their rows of the `known` classes (ours -> theirs) and of background."""
    there = theirs[: each * classes].reshape(classes, each, *theirs.shape[1:])
    rows = own[: len(own) - behind].reshape(-1, each, *own.shape[1:]).copy()
    rows[list(known)] = there[list(known.values())]
    return np.concatenate([rows.reshape(-1, *own.shape[1:]), theirs[len(theirs) - behind :]]).astype(np.float32)
