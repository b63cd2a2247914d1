"""An ONNX graph in the making: values are names, or arrays that are known and become constants where they are read."""

import hashlib
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx

OPSET = 18  # of 2022; every onnxruntime since 1.14 reads it
IR_VERSION = 8  # of the same release

Value = str | np.ndarray


def ints(*numbers: Any) -> np.ndarray:
    """Whole numbers as ONNX takes shapes, axes and indices."""
    return np.array(numbers, np.int64)


def onnx_type(dtype: Any) -> int:
    """ONNX's number of a type."""
    return onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))


class Graph:
    """Nodes in order. The body of a loop or branch is a `child`, which reads the values around it by their names."""

    def __init__(self, parent: "Graph | None" = None):
        """`parent`: the graph around a body."""
        self.nodes: list[onnx.NodeProto] = []
        self._root: Graph = self if parent is None else parent._root
        if parent is None:
            self._names = itertools.count()
            self._constants: dict[tuple[Any, ...], onnx.TensorProto] = {}

    def child(self) -> "Graph":
        """An empty body."""
        return Graph(self)

    def name(self) -> str:
        """One that no other value of the file has."""
        return f"v{next(self._root._names)}"

    def add(self, operator: str, *inputs: Value | None, **attributes: Any) -> str:
        """The one result of a new node; an input that is left out is None."""
        return self.add_many(operator, 1, *inputs, **attributes)[0]

    def add_many(self, operator: str, results: int, *inputs: Value | None, **attributes: Any) -> list[str]:
        """All results of a new node."""
        names = [self.name() for _ in range(results)]
        read = ["" if value is None else self.held(value) for value in inputs]
        self.nodes.append(onnx.helper.make_node(operator, read, names, **attributes))
        return names

    def held(self, value: Value) -> str:
        """The name of a value: equal constants are held once, in the outermost graph."""
        if isinstance(value, str):
            return value
        array = np.ascontiguousarray(value).reshape(value.shape)
        key = (array.dtype.str, array.shape, hashlib.sha256(array.data if array.size else b"").digest())
        constants = self._root._constants
        if key not in constants:
            constants[key] = onnx.numpy_helper.from_array(array, self.name())
        return constants[key].name

    def body(
        self, inputs: Sequence[tuple[str, Any, Sequence[int]]], outputs: Sequence[tuple[str, Any, Sequence[int]]]
    ) -> onnx.GraphProto:
        """The graph as ONNX's message; inputs and outputs are (name, type, shape)."""
        read, written = (
            [onnx.helper.make_tensor_value_info(name, onnx_type(dtype), shape) for name, dtype, shape in values]
            for values in (inputs, outputs)
        )
        outermost = self is self._root
        constants = list(self._constants.values()) if outermost else []
        return onnx.helper.make_graph(self.nodes, "detector" if outermost else "body", read, written, constants)


def model(graph: onnx.GraphProto) -> onnx.ModelProto:
    """A file's content."""
    opset = onnx.helper.make_opsetid("", OPSET)
    return onnx.helper.make_model(graph, producer_name="c2am_jax", opset_imports=[opset], ir_version=IR_VERSION)
