"""Config files of MMDetection as values: read by `ast`, so that no line of them is run.

The rules are those of mmengine 0.10 and mmcv 1.x: ``_base_`` files first, in order; a dict of the file goes into the
base's key by key, ``_delete_=True`` replaces it, everything else replaces. What cannot be read without running it is an
`Unreadable` value, which hurts only who needs it.
"""

import ast
import dataclasses
import operator
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from c2am_jax.errors import UserError

BASE = "_base_"
_DELETE = "_delete_"
_OPERATORS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_CHANGES_NOTHING = set("dict list tuple len range str int float min max sum sorted round".split())
_LARGEST = 10_000  # entries of a list or text that an expression makes


@dataclasses.dataclass(frozen=True)
class Unreadable:
    """An expression that says its value only when run. `where` is ``FILE:LINE``."""

    text: str
    where: str

    def __str__(self) -> str:
        return f"{self.text} ({self.where})"


class _NeedsRunning(Exception):
    """An expression that is not a plain value."""


def read_config(path: str | Path) -> dict[str, Any]:
    """All values of a config by name, its base files merged in.

    Raises:
      UserError: a file that is not there or not Python, a cycle of bases, the style of imports (``read_base()``).
    """
    return _read(Path(path), ())


def _read(path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    if path.resolve() in above:
        raise UserError(f"{path}: is its own base file")
    try:
        text = path.read_text()
        tree = ast.parse(text)
    except FileNotFoundError:
        named = f", the {BASE} of {above[-1]}" if above else ""
        raise UserError(f"{path}: no such file{named}; give a config with its base files beside it") from None
    except (SyntaxError, ValueError) as error:  # a ValueError: bytes that are not text
        raise UserError(f"{path}: not a Python file: {error}") from None
    return _File(path, (*above, path.resolve())).values(tree)


class _File:
    """The statements of one file, one after the other."""

    def __init__(self, path: Path, chain: tuple[Path, ...]):
        self.path, self.chain = path, chain
        self.base: dict[str, Any] = {}
        self.own: dict[str, Any] = {}

    def values(self, tree: ast.Module) -> dict[str, Any]:
        for statement in tree.body:
            if isinstance(statement, ast.Assign) and any(getattr(t, "id", "") == BASE for t in statement.targets):
                self._read_bases(statement)
        for statement in tree.body:
            self._run(statement)
        return _merged(self.base, self.own, str(self.path))

    def _read_bases(self, statement: ast.Assign) -> None:
        try:
            files = ast.literal_eval(statement.value)
        except (ValueError, TypeError):
            raise UserError(f"{self.path}:{statement.lineno}: {BASE} is not a list of file names") from None
        for file in [files] if isinstance(files, str) else files:
            if "::" in file:
                raise UserError(f"{self.path}: {BASE} {file!r} is in an installed package: write the file's path")
            found = _read(self.path.parent / file, self.chain)
            twice = [name for name in found if name in self.base]
            if twice:
                raise UserError(f"{self.path}: {twice[0]} is in two of its base files")
            self.base |= found

    def _run(self, statement: ast.stmt) -> None:
        if isinstance(statement, ast.With) and "read_base" in ast.unparse(statement.items[0]):
            raise UserError(
                f"{self.path}: a config of imports (read_base); take the one of the same name in MMDetection's folder "
                "configs/, or write it out with mmengine: Config.fromfile(FILE).dump(NEW)"
            )
        match statement:
            case ast.Expr(ast.Constant()):  # a docstring
                return
            case ast.Delete(targets) if all(isinstance(target, ast.Name) for target in targets):
                for target in targets:
                    self.own.pop(getattr(target, "id", ""), None)
                return
            case ast.Assign([ast.Name(name)], value):
                self._spoil(*_calls_in(value))
                if name != BASE:
                    self.own[name] = self._value(value)
                return
            case ast.Assign([ast.Attribute() as target], value) if _way_into_base(target):
                self._spoil(*_calls_in(value))
                self._set_in_base(_way_into_base(target), self._value(value))
                return
        self._spoil(statement)

    def _spoil(self, *nodes: ast.stmt | ast.expr) -> None:
        """Whatever code that needs running does, it may do it to each value that it names, and to what holds that."""
        for node in nodes:
            left = Unreadable(ast.unparse(node).split("\n")[0], f"{self.path}:{node.lineno}")
            for name in _names_in(node):
                if name == BASE:
                    for key in _keys_of_base(node) or self.base:
                        self.base[key] = left
                    continue
                spoiled = self.own.get(name)
                if isinstance(spoiled, dict | list):
                    for other in [other for other, value in self.own.items() if _holds(value, spoiled)]:
                        self.own[other] = left
                self.own[name] = left

    def _set_in_base(self, way: list[str], value: Any) -> None:
        place = self.base
        for key in way[:-1]:
            place = place.setdefault(key, {})
            if not isinstance(place, dict):
                raise UserError(f"{self.path}: {BASE}.{'.'.join(way)}: {key} of the base is not a dict")
        place[way[-1]] = value

    def _value(self, node: ast.expr) -> Any:
        """The value of an expression; parts that need running are `Unreadable`."""
        try:
            return self._plain(node)
        except (_NeedsRunning, TypeError, ValueError, LookupError, ArithmeticError):
            return Unreadable(ast.unparse(node), f"{self.path}:{node.lineno}")

    def _plain(self, node: ast.expr) -> Any:
        match node:
            case ast.Constant(value):
                return value
            case ast.List(entries):
                return [self._value(entry) for entry in entries]
            case ast.Tuple(entries):
                return tuple(self._value(entry) for entry in entries)
            case ast.Dict(keys, entries):
                return self._dict(zip(keys, entries, strict=True))
            case ast.Call(ast.Name("dict"), given, keywords) if len(given) <= 1:
                start = self._mapping(given[0]) if given else {}
                named = ((ast.Constant(k.arg) if k.arg else None, k.value) for k in keywords)
                return {**start, **self._dict(named)}
            case ast.Call(ast.Name("list" | "tuple" as kind), [entry], []):
                return (list if kind == "list" else tuple)(self._entries(entry))
            case ast.UnaryOp(ast.USub() | ast.UAdd() | ast.Not() as sign, operand):
                value = self._plain(operand)
                return not value if isinstance(sign, ast.Not) else -value if isinstance(sign, ast.USub) else +value
            case ast.BinOp(left, sign, right) if type(sign) in _OPERATORS:
                return _small(_OPERATORS[type(sign)], self._plain(left), self._plain(right))
            case ast.Name(name):
                if name in self.own:
                    return self.own[name]
                raise _NeedsRunning
            case ast.Attribute() | ast.Set():  # _base_.key.key, and {{_base_.key}} or {{'text'}} of older files
                return self._of_base(node)
            case ast.Subscript(whole, index):
                return self._plain(whole)[self._plain(index)]
            case ast.JoinedStr(parts):
                return "".join(self._text(part) for part in parts)
        raise _NeedsRunning

    def _dict(self, pairs: Any) -> dict[Any, Any]:
        found: dict[Any, Any] = {}
        for key, value in pairs:
            found |= self._mapping(value) if key is None else {self._plain(key): self._value(value)}
        return found

    def _mapping(self, node: ast.expr) -> dict[Any, Any]:
        value = self._plain(node)
        if not isinstance(value, dict):
            raise _NeedsRunning
        return value

    def _entries(self, node: ast.expr) -> list[Any]:
        value = self._plain(node)
        if not isinstance(value, list | tuple):
            raise _NeedsRunning
        return list(value)

    def _text(self, part: ast.expr) -> str:
        if isinstance(part, ast.FormattedValue):
            if part.format_spec or part.conversion != -1:
                raise _NeedsRunning
            value = self._plain(part.value)
        else:
            value = self._plain(part)
        if not isinstance(value, str | int | float):
            raise _NeedsRunning
        return str(value)

    def _of_base(self, node: ast.expr) -> Any:
        while isinstance(node, ast.Set) and len(node.elts) == 1:
            node = node.elts[0]
        way = _way_into_base(node)
        if not way:
            raise _NeedsRunning
        value: Any = self.base
        for key in way:
            value = value[key]
        return value


def _way_into_base(node: ast.expr) -> list[str]:
    """Keys of ``_base_.model.backbone``; [] for anything else."""
    way = []
    while isinstance(node, ast.Attribute):
        way.insert(0, node.attr)
        node = node.value
    return way if getattr(node, "id", "") == BASE else []


def _names_in(node: ast.stmt | ast.expr) -> set[str]:
    nodes = list(ast.walk(node))
    names = {part.id for part in nodes if isinstance(part, ast.Name)}
    names |= {part.name for part in nodes if isinstance(part, ast.FunctionDef | ast.ClassDef)}
    return names | {(part.asname or part.name).split(".")[0] for part in nodes if isinstance(part, ast.alias)}


def _calls_in(node: ast.expr) -> list[ast.expr]:
    """Calls that may change what they are given: ``model.pop("neck")``."""
    calls = [part for part in ast.walk(node) if isinstance(part, ast.Call)]
    return [call for call in calls if not (isinstance(call.func, ast.Name) and call.func.id in _CHANGES_NOTHING)]


def _keys_of_base(node: ast.stmt | ast.expr) -> set[str]:
    """First keys behind each ``_base_.`` in a piece of code."""
    ways = [_way_into_base(part) for part in ast.walk(node) if isinstance(part, ast.expr)]
    return {way[0] for way in ways if way}


def _holds(value: Any, part: Any) -> bool:
    """Whether `part` itself, not its equal, is in a value."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return value is part or any(_holds(entry, part) for entry in inner)


def _small(combine: Callable[[Any, Any], Any], left: Any, right: Any) -> Any:
    """An operation on plain values that cannot blow up."""
    pair = (left, right)
    if combine is operator.mul and any(isinstance(x, str | list | tuple) for x in pair):
        size, times = (len(left), right) if hasattr(left, "__len__") else (len(right), left)
        if not isinstance(times, int) or size * times > _LARGEST:
            raise _NeedsRunning
    if any(isinstance(x, Unreadable) for x in pair) or (combine is operator.mod and isinstance(left, str)):
        raise _NeedsRunning
    return combine(left, right)


def _merged(base: Any, own: Any, where: str, key: str = "") -> Any:
    """`own` on top of `base`."""
    if not isinstance(own, dict):
        return own
    replaces = own.get(_DELETE) is True
    own = {name: value for name, value in own.items() if name != _DELETE}
    if replaces or base is None and not key:
        base = {}
    if isinstance(base, Unreadable):
        return base
    if not isinstance(base, Mapping):
        raise UserError(f"{where}: {key} is a dict, but {base!r} in its base file: add _delete_=True")
    found = dict(base)
    for name, value in own.items():
        inner = f"{key}.{name}".lstrip(".")
        there = found.get(name, {}) if isinstance(value, dict) else None
        found[name] = _merged(there, value, where, inner)
    return found
