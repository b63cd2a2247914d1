"""All classification methods by name, one file each: its functions, its head and its state.

A method is a function from its parameters to a `Classification`, and one line in `METHODS`, or a function anywhere else
that the config names as ``MODULE:FUNCTION``. One that has a parameter `statistics` is told how often each class occurs
in the training set.
"""

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any, get_type_hints

from c2am_jax.checks import checked, unknown
from c2am_jax.errors import UserError
from c2am_jax.losses.classification import Classification
from c2am_jax.losses.methods import (
    acsl,
    arcface,
    bacl,
    bags,
    balanced_sigmoid,
    balanced_softmax,
    balms,
    c2am,
    cbl,
    cosface,
    cosine,
    disalign,
    ecm,
    efl,
    eql,
    eql_v2,
    fasa,
    fixed_margin,
    forest,
    gol,
    ldam,
    loce,
    lws,
    pcb,
    seesaw,
    softmax,
    sphereface,
)
from c2am_jax.losses.statistics import ClassStatistics

METHODS: dict[str, Callable[..., Classification]] = {
    "softmax": softmax.softmax,
    "cosine": cosine.cosine,
    "c2am": c2am.c2am,
    "fixed_margin": fixed_margin.fixed_margin,
    "cosface": cosface.cosface,
    "arcface": arcface.arcface,
    "sphereface": sphereface.sphereface,
    "seesaw": seesaw.seesaw,
    "cbl": cbl.cbl,
    "ldam": ldam.ldam,
    "balanced_softmax": balanced_softmax.balanced_softmax,
    "balanced_sigmoid": balanced_sigmoid.balanced_sigmoid,
    "eql": eql.eql,
    "eql_v2": eql_v2.eql_v2,
    "ecm": ecm.ecm,
    "efl": efl.efl,
    "acsl": acsl.acsl,
    "gol": gol.gol,
    "lws": lws.lws,
    "bags": bags.bags,
    "disalign": disalign.disalign,
    "balms": balms.balms,
    "loce": loce.loce,
    "fasa": fasa.fasa,
    "forest": forest.forest,
    "bacl": bacl.bacl,
    "pcb": pcb.pcb,
}
OWN = "MODULE:FUNCTION, such as my_package.my_file:my_loss"


def find_method(name: str) -> Callable[..., Classification]:
    """The function of a name of `METHODS`, or of ``MODULE:FUNCTION``, a method outside this package.

    Raises:
      ValueError: a name that is neither.
      UserError: no such module or function.
    """
    if name in METHODS:
        return METHODS[name]
    module, colon, function = name.partition(":")
    if not colon:
        raise ValueError(f"unknown loss {name!r}; choose one of {', '.join(METHODS)}, or your own: {OWN}")
    try:
        found = getattr(importlib.import_module(module), function, None)
    except (ImportError, TypeError, ValueError) as error:
        raise UserError(f"loss {name!r}: cannot import {module!r} ({error}); give {OWN}") from error
    if found is None:
        raise UserError(f"loss {name!r}: no function {function!r} in {module}; give {OWN}")
    return found


def method_parameters(name: str) -> dict[str, Any]:
    """Parameters of a method with their defaults, as `config.loss` lists them. Raises as `find_method`."""
    found = inspect.signature(find_method(name)).parameters.values()
    return {p.name: p.default for p in found if p.name != "statistics"}


def checked_parameters(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """All parameters of a method: those `given`, as their annotations allow, and the defaults of the others.

    Raises:
      ValueError: unknown method.
      WrongSetting: unknown parameter of it, or a value that is not allowed.
    """
    found, hints = method_parameters(name), get_type_hints(find_method(name), include_extras=True)
    for key, value in given.items():
        if key not in found:
            raise unknown(key, found)
        found[key] = checked(hints.get(key, type(found[key])), key, value)
    return found


def make_classification(name: str, statistics: ClassStatistics | None = None, **parameters: Any) -> Classification:
    """The method `name` (see `find_method`) with its `parameters`, whose defaults are the paper's.

    `statistics` of the training set, for the methods that use them; without, all classes count alike (enough to look at
    scores, shapes and programs, and wrong to train with).

    Raises:
      ValueError: as `checked_parameters`.
      UserError: no such module or function.
    """
    make, parameters = find_method(name), checked_parameters(name, parameters)
    if "statistics" in inspect.signature(make).parameters:
        return make(statistics or ClassStatistics.uniform(1), **parameters)
    return make(**parameters)
