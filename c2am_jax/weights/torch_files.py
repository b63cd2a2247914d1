"""Tensors of ``.pth`` files, read without torch and without running anything that stands in them.

Such a file is a pickle, a program for a stack machine, with the numbers beside it. The machine here knows containers,
plain values and tensors. Whatever else a pickle names (a class, a function, ``os.system``) becomes an `Inert` value: it
is never imported and never called. Two forms exist (torch/serialization.py): a zip archive, and before torch 1.6 a row
of pickles with the raw storages behind them.
"""

import dataclasses
import io
import math
import mmap
import pickletools
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from c2am_jax.wording import counted

_MAGIC = 0x1950A86A20F9469CFC6C  # first value of the form without a zip
_ERRORS = (ValueError, IndexError, KeyError, TypeError, OverflowError, EOFError, MemoryError, AttributeError)
# What zipfile raises for damage: also of places outside of the file, odd compression, encryption.
_ZIP_ERRORS = (zipfile.BadZipFile, OSError, NotImplementedError, RuntimeError)
_PLAIN = (str, bytes, int, float, bool, type(None))
_BFLOAT16 = "bfloat16"
# Kinds of numbers by the names of torch's storages and dtypes.
_KINDS = {
    **{"DoubleStorage": "f8", "FloatStorage": "f4", "HalfStorage": "f2", "BFloat16Storage": _BFLOAT16},
    **{"LongStorage": "i8", "IntStorage": "i4", "ShortStorage": "i2", "CharStorage": "i1"},
    **{"ByteStorage": "u1", "BoolStorage": "?", "UntypedStorage": "u1"},
    **{"float64": "f8", "float32": "f4", "float16": "f2", "bfloat16": _BFLOAT16},
    **{"int64": "i8", "int32": "i4", "int16": "i2", "int8": "i1"},
    **{"uint8": "u1", "uint16": "u2", "uint32": "u4", "uint64": "u8", "bool": "?"},
}


@dataclasses.dataclass(frozen=True, eq=False)
class Inert:
    """Something of a pickle that is neither a container, a plain value nor a tensor: only its name is left."""

    name: str


@dataclasses.dataclass(frozen=True, eq=False)
class Tensor:
    """A tensor whose numbers are not read yet: a view of a storage, all in elements."""

    storage: "_Storage"
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    kind: str

    def array(self) -> np.ndarray:
        """Its numbers; float16 and bfloat16 as float32. Raises ValueError if they lie outside of the file."""
        counts = (self.offset, *self.shape, *self.strides)
        if len(self.shape) != len(self.strides) or len(self.shape) > 32:
            raise ValueError("a tensor's shape and strides do not go together")
        if any(type(n) is not int or n < 0 for n in counts):
            raise ValueError("a tensor's offset, shape or strides are no counts")
        values = self.storage.values(self.kind)
        size = math.prod(self.shape)
        last = self.offset + sum((n - 1) * step for n, step in zip(self.shape, self.strides, strict=True))
        if size and (last >= len(values) or size > len(values)):
            raise ValueError(
                f"a tensor of shape {self.shape} reaches beyond its storage of {counted(len(values), 'number')}"
            )
        if not size:
            return _plain_floats(np.zeros(self.shape, values.dtype), self.kind)
        steps = tuple(step * values.itemsize for step in self.strides)
        view = np.lib.stride_tricks.as_strided(values[self.offset :], self.shape, steps, writeable=False)
        return _plain_floats(view, self.kind)


@dataclasses.dataclass(eq=False)
class _Storage:
    """Numbers of a file: `read` gives the bytes of all of them."""

    kind: str
    count: int
    read: Callable[[], bytes | memoryview]
    order: str = "<"

    def values(self, kind: str) -> np.ndarray:
        """[count] of the type that `kind` is stored as."""
        content = self.read()
        own = np.dtype(_stored(self.kind))
        if len(content) < self.count * own.itemsize:
            raise ValueError(f"a storage has {len(content)} bytes instead of {self.count * own.itemsize}")
        dtype = np.dtype(self.order + _stored(kind))
        return np.frombuffer(content[: self.count * own.itemsize // dtype.itemsize * dtype.itemsize], dtype)


def _stored(kind: str) -> str:
    return "u2" if kind == _BFLOAT16 else kind


def _plain_floats(values: np.ndarray, kind: str) -> np.ndarray:
    """A copy in the machine's byte order, short floats as float32."""
    if kind == _BFLOAT16:  # the upper half of a float32
        return (values.astype(np.uint32) << 16).view(np.float32)
    return np.array(values, np.float32 if kind == "f2" else values.dtype.newbyteorder("="), order="C")


def read_torch(path: str | Path) -> Any:
    """What `torch.save` wrote: containers and plain values, a `Tensor` for each tensor, `Inert` for all else.

    Raises:
      ValueError: no such file of torch, or a damaged one; the text says what is wrong with it.
    """
    try:
        return _read_zip(path) if zipfile.is_zipfile(path) else _read_legacy(path)
    except (*_ERRORS, *_ZIP_ERRORS) as error:
        raise ValueError(_text(error)) from None


def arrays_in(tensors: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The numbers of a state dict; its values that are no tensors, such as counters, are left out.

    Raises:
      ValueError: a value that is `Inert`, or a tensor whose numbers are not in the file.
    """
    found = {}
    for name, value in tensors.items():
        if isinstance(value, Inert):
            raise ValueError(f"{name} is no plain tensor, but a {value.name}")
        if isinstance(value, Tensor):
            try:
                found[str(name)] = value.array()
            except (*_ERRORS, *_ZIP_ERRORS) as error:
                raise ValueError(f"{name}: {_text(error)}") from None
    return found


def _text(error: BaseException) -> str:
    text = " ".join(str(error).split())
    known = isinstance(error, ValueError | zipfile.BadZipFile) and text
    return text if known else f"damaged ({type(error).__name__}{': ' + text if text else ''})"


def _read_zip(path: str | Path) -> Any:
    archive = zipfile.ZipFile(path)  # open as long as there are tensors that may be read
    names = set(archive.namelist())
    pickles = [name for name in names if name == "data.pkl" or name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise ValueError("a zip archive, but not one of torch: it has no data.pkl")
    folder = pickles[0].removesuffix("data.pkl")

    def member(name: str) -> bytes:
        if name not in names:
            raise ValueError(f"{name} is missing in it")
        if archive.getinfo(name).compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"{name} in it is compressed, which torch never does")
        return archive.read(name)

    order = member(f"{folder}byteorder").strip() if f"{folder}byteorder" in names else b"little"

    def storage(kind: str, key: Any, count: int, view: Any) -> _Storage:
        del view  # the other form has these
        if kind not in _KINDS:
            raise ValueError(f"it has numbers of the kind {kind}, which are not read here")
        return _Storage(_KINDS[kind], count, lambda: member(f"{folder}data/{key}"), ">" if order == b"big" else "<")

    return _Machine(storage).run(io.BytesIO(member(pickles[0])))


def _read_legacy(path: str | Path) -> Any:
    content = _map(Path(path))
    stream: Any = io.BytesIO(content) if isinstance(content, bytes) else content
    not_torch = "neither a zip archive of torch nor its older form"
    try:
        magic = _Machine().run(stream)
    except _ERRORS:
        raise ValueError(not_torch) from None
    if magic != _MAGIC:
        raise ValueError(not_torch)
    version, system = _Machine().run(stream), _Machine().run(stream)
    if version != 1001 or not isinstance(system, dict):
        raise ValueError("written by an unknown version of torch")
    order = "<" if system.get("little_endian", True) else ">"
    places: dict[str, tuple[int, int]] = {}  # key -> position of the first byte, count of numbers
    kinds: dict[str, str] = {}

    def storage(kind: str, key: Any, count: int, view: Any) -> _Storage:
        if kind not in _KINDS:
            raise ValueError(f"it has numbers of the kind {kind}, which are not read here")
        kinds[key] = _KINDS[kind]
        size = np.dtype(_stored(_KINDS[kind])).itemsize
        first = 0
        if view is not None:  # (key, first number, count) of a part of the storage
            _, first, count = view
        if type(first) is not int or type(count) is not int or min(first, count) < 0:
            raise ValueError("a part of a storage is not given by counts")

        def read() -> memoryview:
            if key not in places:
                raise ValueError(f"storage {key} is missing in it")
            at, there = places[key]
            if first + count > there:
                raise ValueError(f"a part of storage {key} reaches beyond its {there} numbers")
            return memoryview(content)[at + first * size : at + (first + count) * size]

        return _Storage(_KINDS[kind], count, read, order)

    result = _Machine(storage).run(stream)
    keys = _Machine().run(stream)
    at = stream.tell()
    for key in keys if isinstance(keys, list) else []:
        if not isinstance(key, str) or key not in kinds:
            raise ValueError("a storage in it belongs to no tensor")
        count = int.from_bytes(content[at : at + 8], "little" if order == "<" else "big")
        size = count * np.dtype(_stored(kinds[key])).itemsize
        if at + 8 + size > len(content):
            raise ValueError(f"it ends inside of storage {key}: cut off?")
        places[key] = at + 8, count
        at += 8 + size
    return result


def _map(path: Path) -> bytes | mmap.mmap:
    with path.open("rb") as file:
        try:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError):  # empty, or a file system without mapping
            return file.read()


def _no_storage(kind: str, key: Any, count: int, view: Any) -> _Storage:
    raise ValueError("numbers where none belong")


def _mapping(pairs: Any = ()) -> dict:
    found: dict = {}
    for key, value in pairs.items() if isinstance(pairs, dict) else pairs if isinstance(pairs, list | tuple) else ():
        _put(found, key, value)
    return found


def _put(target: Any, key: Any, value: Any) -> None:
    """Set an item of a dict; keys that are not plain are left out, and so are items of what is `Inert`."""
    if isinstance(target, dict) and (isinstance(key, _PLAIN) or _flat(key)):
        target[key] = value


def _flat(key: Any) -> bool:
    return isinstance(key, tuple) and all(isinstance(part, _PLAIN) for part in key)


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *rest: Any) -> Any:
    if not isinstance(storage, _Storage):
        raise ValueError("a tensor without a storage")
    return Tensor(storage, offset, tuple(shape), tuple(strides), storage.kind)


def _typed_tensor(storage: Any, offset: Any, shape: Any, strides: Any, grad: Any, hooks: Any, kind: Any, *rest: Any):
    name = getattr(kind, "name", "").removeprefix("torch.")
    if name not in _KINDS or not isinstance(storage, _Storage):
        raise ValueError(f"it has numbers of the kind {name}, which are not read here")
    return Tensor(storage, offset, tuple(shape), tuple(strides), _KINDS[name])


# All that a pickle may call, by name, and what is done instead.
_CALLS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _mapping,
    "collections.defaultdict": lambda *kind_and_pairs: _mapping(*kind_and_pairs[1:]),
    "torch.Size": tuple,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _typed_tensor,
    "torch._utils._rebuild_parameter": lambda data, *rest: data,
    "torch._utils._rebuild_parameter_with_state": lambda data, *rest: data,
}


class _Machine:
    """Runs one pickle, every opcode of protocols 0 to 5. `pickletools` takes it apart; nothing is looked up by name."""

    def __init__(self, storage: Callable[[str, Any, int, Any], _Storage] = _no_storage):
        """`storage` makes a storage of (kind, key, count, view)."""
        self._storage = storage
        self._stack: list[Any] = []
        self._marked: list[list[Any]] = []  # stacks below each mark
        self._memo: dict[int, Any] = {}

    def run(self, stream: Any) -> Any:
        """The value that the pickle at the stream's position leaves; the stream stands behind it then."""
        for opcode, argument, _ in pickletools.genops(stream):
            if opcode.name == "STOP":
                return self._stack.pop()
            if opcode.name in _CONSTANTS:
                self._stack.append(argument)
            else:
                _OPERATIONS[opcode.name](self, argument)
        raise EOFError

    def _above_mark(self) -> list[Any]:
        found, self._stack = self._stack, self._marked.pop()
        return found

    def _mark(self, _: Any) -> None:
        self._marked.append(self._stack)
        self._stack = []

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _tuple_of(self, count: int) -> None:
        values = tuple(self._pop() for _ in range(count))
        self._stack.append(values[::-1])

    def _pop(self) -> Any:
        return self._stack.pop()

    def _pop_or_mark(self, _: Any) -> None:
        if self._stack:
            self._stack.pop()
        else:
            self._above_mark()

    def _append(self, values: list[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, list):
            target.extend(values)

    def _set_items(self, pairs: list[Any]) -> None:
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            _put(self._stack[-1], key, value)

    def _add(self, values: list[Any]) -> None:
        if isinstance(self._stack[-1], set):
            self._stack[-1].update(value for value in values if isinstance(value, _PLAIN))

    def _remember(self, key: int) -> None:
        self._memo[key] = self._stack[-1]

    def _set_item(self, _: Any) -> None:
        value, key = self._pop(), self._pop()
        self._set_items([key, value])

    def _global(self, name: str) -> None:
        self._stack.append(Inert(name))

    def _stack_global(self, _: Any) -> None:
        name, module = self._pop(), self._pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise ValueError("a name that is no text")
        self._global(f"{module}.{name}")

    def _call(self, target: Any, arguments: Any) -> None:
        """What a class or function would return: one of `_CALLS`, or an `Inert` of its name."""
        name = target.name if isinstance(target, Inert) else type(target).__name__
        known = _CALLS.get(name)
        self._stack.append(known(*arguments) if known and isinstance(arguments, tuple) else Inert(name))

    def _reduce(self, _: Any) -> None:
        arguments, target = self._pop(), self._pop()
        self._call(target, arguments)

    def _new_with_keywords(self, _: Any) -> None:
        keywords, arguments, target = self._pop(), self._pop(), self._pop()
        del keywords
        self._call(target, arguments)

    def _instance(self, name: str) -> None:
        self._call(Inert(name), tuple(self._above_mark()))

    def _object(self, _: Any) -> None:
        target, *arguments = self._above_mark()
        self._call(target, tuple(arguments))

    def _persistent(self, _: Any) -> None:
        """A storage: ("storage", its class, key, place, count) and, in the older form, a view."""
        match self._pop():
            case ("storage", Inert(kind), str() as key, _, int() as count, *view) if count >= 0:
                self._stack.append(self._storage(kind.rpartition(".")[2], key, count, view[0] if view else None))
            case _:
                raise ValueError("a reference to something that is no storage")


# Opcodes whose argument is the value itself.
_CONSTANTS = frozenset(
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE "
    "SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8".split()
)


def _refuse(machine: _Machine, _: Any) -> None:
    raise ValueError("it refers to data outside of the file")


_OPERATIONS: dict[str, Callable[[_Machine, Any], Any]] = {
    **dict.fromkeys(("PROTO", "FRAME"), lambda m, _: None),
    "NONE": lambda m, _: m._push(None),
    "NEWTRUE": lambda m, _: m._push(True),
    "NEWFALSE": lambda m, _: m._push(False),
    "EMPTY_LIST": lambda m, _: m._push([]),
    "EMPTY_TUPLE": lambda m, _: m._push(()),
    "EMPTY_DICT": lambda m, _: m._push({}),
    "EMPTY_SET": lambda m, _: m._push(set()),
    "MARK": _Machine._mark,
    "POP": _Machine._pop_or_mark,
    "POP_MARK": lambda m, _: m._above_mark(),
    "DUP": lambda m, _: m._push(m._stack[-1]),
    "LIST": lambda m, _: m._push(m._above_mark()),
    "TUPLE": lambda m, _: m._push(tuple(m._above_mark())),
    "TUPLE1": lambda m, _: m._tuple_of(1),
    "TUPLE2": lambda m, _: m._tuple_of(2),
    "TUPLE3": lambda m, _: m._tuple_of(3),
    "DICT": lambda m, _: (pairs := m._above_mark(), m._push({}), m._set_items(pairs)),
    "FROZENSET": lambda m, _: (values := m._above_mark(), m._push(set()), m._add(values)),
    "APPEND": lambda m, _: m._append([m._pop()]),
    "APPENDS": lambda m, _: m._append(m._above_mark()),
    "SETITEM": _Machine._set_item,
    "SETITEMS": lambda m, _: m._set_items(m._above_mark()),
    "ADDITEMS": lambda m, _: m._add(m._above_mark()),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _Machine._remember),
    "MEMOIZE": lambda m, _: m._remember(len(m._memo)),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda m, key: m._push(m._memo[key])),
    "GLOBAL": lambda m, names: m._global(".".join(names.split(" ", 1))),
    "STACK_GLOBAL": _Machine._stack_global,
    **dict.fromkeys(("REDUCE", "NEWOBJ"), _Machine._reduce),
    "NEWOBJ_EX": _Machine._new_with_keywords,
    "INST": lambda m, names: m._instance(".".join(names.split(" ", 1))),
    "OBJ": _Machine._object,
    "BUILD": lambda m, _: m._pop(),  # an object's state
    "BINPERSID": _Machine._persistent,
    **dict.fromkeys(("PERSID", "NEXT_BUFFER", "READONLY_BUFFER"), _refuse),
    **dict.fromkeys(("EXT1", "EXT2", "EXT4"), lambda m, code: m._global(f"extension {code}")),
}
