"""A detector as one value, a structure and named arrays. The only place where NNX's split and merge are called."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.tree_util import register_dataclass

from c2am_jax.models.detector import MaskRCNN

Arrays = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True, eq=False)  # programs are kept per structure, and looked up without comparing graphs
class Structure:
    """A detector without its arrays: what a program is compiled for."""

    graph: Any
    trees: tuple[Any, ...]  # of params and of rest
    names: tuple[tuple[str, ...], ...]


@register_dataclass
@dataclasses.dataclass(frozen=True)
class Detector:
    """A detector, as programs take it and files hold it.

    Arrays are dictionaries from a dotted name, such as ``backbone.layer1.0.conv1.kernel``, to an array.

    Attributes:
      structure: what it is made of, static in a program.
      params: what trains.
      rest: frozen values and running statistics.
    """

    structure: Structure = dataclasses.field(metadata={"static": True})
    params: Arrays
    rest: Arrays

    @classmethod
    def of(cls, model: MaskRCNN) -> "Detector":
        """The value of a module."""
        graph, *states = nnx.split(model, nnx.Param, ...)
        params, rest = (_named(state) for state in states)
        trees = tuple(jax.tree.structure(state) for state in states)
        return cls(Structure(graph, trees, (tuple(params), tuple(rest))), params, rest)

    @property
    def arrays(self) -> Arrays:
        """`params` and `rest` together."""
        return self.params | self.rest

    def module(self) -> MaskRCNN:
        """The module with these arrays."""
        parts = zip(self.structure.trees, self.structure.names, (self.params, self.rest), strict=True)
        states = [jax.tree.unflatten(tree, [arrays[name] for name in order]) for tree, order, arrays in parts]
        return nnx.merge(self.structure.graph, *states)

    def with_arrays(self, arrays: Mapping[str, Any]) -> "Detector":
        """This detector with the values of `arrays`, of its own types; what they do not name stays."""

        def take(own: Arrays) -> Arrays:
            return {n: jnp.asarray(arrays[n], v.dtype) if n in arrays else v for n, v in own.items()}

        return Detector(self.structure, take(self.params), take(self.rest))


def rest_of(model: MaskRCNN) -> Arrays:
    """`Detector.rest` of a module, after calls that changed its statistics."""
    return _named(nnx.split(model, nnx.Param, ...)[2])


def _named(state: Any) -> Arrays:
    pairs, _ = jax.tree.flatten_with_path(state)
    parts = ([getattr(key, "key", getattr(key, "name", key)) for key in path[:-1]] for path, _ in pairs)
    return {".".join(map(str, path)): value for path, (_, value) in zip(parts, pairs, strict=True)}
