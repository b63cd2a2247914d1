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


def _names(state: nnx.State) -> tuple[str, ...]:
    paths = [path for path, _ in jax.tree.flatten_with_path(state)[0]]
    return tuple(".".join(str(getattr(key, "key", getattr(key, "name", key))) for key in path[:-1]) for path in paths)


@dataclasses.dataclass(frozen=True, eq=False)  # programs are kept per structure, and looked up without comparing graphs
class Structure:
    """A detector without its arrays: what a program is compiled for."""

    graph: Any
    params_tree: Any
    rest_tree: Any
    params_names: tuple[str, ...]
    rest_names: tuple[str, ...]


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
        graph, params, rest = nnx.split(model, nnx.Param, ...)
        trees = jax.tree.structure(params), jax.tree.structure(rest)
        return cls(Structure(graph, *trees, _names(params), _names(rest)), _named(params), _named(rest))

    @property
    def arrays(self) -> Arrays:
        """`params` and `rest` together."""
        return self.params | self.rest

    def module(self) -> MaskRCNN:
        """The module with these arrays."""
        s = self.structure
        parts = (s.params_tree, s.params_names, self.params), (s.rest_tree, s.rest_names, self.rest)
        states = [jax.tree.unflatten(tree, [arrays[name] for name in names]) for tree, names, arrays in parts]
        return nnx.merge(s.graph, *states)

    def with_arrays(self, arrays: Mapping[str, Any]) -> "Detector":
        """This detector with the values of `arrays`, of its own types; what they do not name stays."""
        take = lambda own: {n: jnp.asarray(arrays[n], v.dtype) if n in arrays else v for n, v in own.items()}  # noqa: E731
        return Detector(self.structure, take(self.params), take(self.rest))


def rest_of(model: MaskRCNN) -> Arrays:
    """`Detector.rest` of a module, after calls that changed its statistics."""
    _, _, rest = nnx.split(model, nnx.Param, ...)
    return _named(rest)


def _named(state: nnx.State) -> Arrays:
    return dict(zip(_names(state), jax.tree.leaves(state), strict=True))
