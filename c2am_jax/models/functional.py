"""A module as pure data: named arrays in, module out. The only place where NNX's split and merge are called."""

import dataclasses
from typing import Any

import jax
from flax import nnx

from c2am_jax.models.detector import MaskRCNN

Arrays = dict[str, jax.Array]


def _names(state: nnx.State) -> list[str]:
    paths = [path for path, _ in jax.tree.flatten_with_path(state)[0]]
    return [".".join(str(getattr(key, "key", getattr(key, "name", key))) for key in path[:-1]) for path in paths]


@dataclasses.dataclass(frozen=True)
class Functional:
    """The structure of a detector without its arrays.

    Arrays are dictionaries from a dotted name, such as ``backbone.layer1.0.conv1.kernel``, to an array: `params` (what
    trains) and `rest` (frozen values and running statistics).
    """

    graph: Any
    params_tree: Any
    rest_tree: Any
    params_names: tuple[str, ...]
    rest_names: tuple[str, ...]

    @classmethod
    def of(cls, model: MaskRCNN) -> tuple["Functional", Arrays, Arrays]:
        """Structure, params and rest of a module."""
        graph, params, rest = nnx.split(model, nnx.Param, ...)
        trees = jax.tree.structure(params), jax.tree.structure(rest)
        functional = cls(graph, *trees, tuple(_names(params)), tuple(_names(rest)))
        return functional, *functional._named(params, rest)

    def _named(self, params: nnx.State, rest: nnx.State) -> tuple[Arrays, Arrays]:
        pair = (self.params_names, params), (self.rest_names, rest)
        return tuple(dict(zip(names, jax.tree.leaves(state), strict=True)) for names, state in pair)

    def merge(self, params: Arrays, rest: Arrays) -> MaskRCNN:
        """The module with these arrays."""
        parts = (self.params_tree, self.params_names, params), (self.rest_tree, self.rest_names, rest)
        states = [jax.tree.unflatten(tree, [arrays[name] for name in names]) for tree, names, arrays in parts]
        return nnx.merge(self.graph, *states)

    def split(self, model: MaskRCNN) -> tuple[Arrays, Arrays]:
        """The arrays of a module made by `merge`, after calls that changed its statistics."""
        _, params, rest = nnx.split(model, nnx.Param, ...)
        return self._named(params, rest)
