"""All classification methods by name: loss, inference rule and state, from one entry of the config.

A method is a function from its parameters to a `Classification`, and one line in `METHODS`; one that has a parameter
`statistics` is told how often each class occurs in the training set.
"""

import inspect
from collections.abc import Callable
from typing import Any

from c2am_jax.losses import cosine
from c2am_jax.losses.classification import Classification
from c2am_jax.losses.methods import (
    angular,
    augmented,
    channels,
    decoupled,
    hierarchical,
    inner_product,
    sampled,
    seesaw,
)
from c2am_jax.losses.statistics import ClassStatistics

METHODS: dict[str, Callable[..., Classification]] = {
    "softmax": inner_product.softmax,
    "cosine": angular.cosine,
    "c2am": angular.c2am,
    "fixed_margin": angular.fixed_margin,
    "cosface": angular.cosface,
    "arcface": angular.arcface,
    "sphereface": angular.sphereface,
    "seesaw": seesaw.seesaw,
    "cbl": inner_product.cbl,
    "ldam": angular.ldam,
    "balanced_softmax": inner_product.balanced_softmax,
    "balanced_sigmoid": channels.balanced_sigmoid,
    "eql": channels.eql,
    "eql_v2": channels.eql_v2,
    "ecm": channels.ecm,
    "efl": channels.efl,
    "acsl": sampled.acsl,
    "gol": sampled.gol,
    "lws": decoupled.lws,
    "bags": decoupled.bags,
    "disalign": decoupled.disalign,
    "balms": decoupled.balms,
    "loce": decoupled.loce,
    "fasa": augmented.fasa,
    "forest": hierarchical.forest,
}


def method_parameters(name: str) -> dict[str, Any]:
    """Parameters of a method with their defaults, as `config.loss` lists them."""
    if name not in METHODS:
        raise ValueError(f"unknown loss {name!r}; choose one of {', '.join(METHODS)}")
    parameters = inspect.signature(METHODS[name]).parameters.values()
    return {p.name: p.default for p in parameters if p.name != "statistics"}


def make_classification(name: str, statistics: ClassStatistics | None = None, **parameters: Any) -> Classification:
    """The method `name` with its `parameters` (defaults: the paper's).

    `statistics` of the training set, for the methods that use them; without, all classes count alike (enough to look at
    scores, shapes and programs, and wrong to train with).

    Raises:
      ValueError: unknown method, unknown parameter of it, or a value that the loss does not know.
    """
    known = method_parameters(name)
    unknown = sorted(set(parameters) - set(known))
    if unknown:
        raise ValueError(f"loss {name!r} has no parameter {', '.join(unknown)}; it has {', '.join(known) or 'none'}")
    choices = {
        "background": cosine.BACKGROUND_RULES,
        "wrap": cosine.ARCFACE_WRAPS if name == "arcface" else cosine.C2AM_WRAPS,
    }
    for parameter, allowed in choices.items():
        if parameters.get(parameter, allowed[0]) not in allowed:
            raise ValueError(f"loss.{parameter} must be one of {', '.join(allowed)}, not {parameters[parameter]!r}")
    if "statistics" in inspect.signature(METHODS[name]).parameters:
        return METHODS[name](statistics or ClassStatistics.uniform(1), **parameters)
    return METHODS[name](**parameters)
