"""Settings: frozen dataclasses whose fields say in their type what they may be, and refuse the rest by one line.

``batch_size: Count = 16`` is type, range and default in one place. What a value must be beside others stands in the
`relations` of its class.
"""

import dataclasses
import difflib
import functools
import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any, NamedTuple, Self, get_args, get_origin, get_type_hints

from c2am_jax.errors import UserError


class WrongSetting(UserError, ValueError):
    """A setting that cannot be used; the text begins with its key."""

    def __init__(self, key: str, problem: str = ""):
        """`problem` follows the key: its value and what is allowed. Flag parsers raise it again with one text."""
        super().__init__(f"{key}{problem}")
        self.key, self.problem = key, problem

    def inside(self, group: str) -> "WrongSetting":
        """The same, with the key's place in the group that holds it."""
        return WrongSetting(f"{group}.{self.key}", self.problem)


def wrong(key: str, value: Any, allowed: str) -> WrongSetting:
    """The error of a value that is not what is `allowed`."""
    return WrongSetting(key, f"={value!r}: must be {allowed}")


class Allowed(NamedTuple):
    """A rule on values of a type: all that they must be, in words, and the test."""

    text: str
    holds: Callable[[Any], bool]


def one_of(*choices: str | int) -> Allowed:
    """One of a few values."""
    return Allowed(f"one of {', '.join(map(str, choices))}", lambda value: value in choices)


Text = Annotated[str, Allowed("a text that is not empty", bool)]
Count = Annotated[int, Allowed("a whole number of at least 1", lambda value: value >= 1)]
Natural = Annotated[int, Allowed("a whole number of at least 0", lambda value: value >= 0)]
Share = Annotated[float, Allowed("a number from 0 to 1", lambda value: 0 <= value <= 1)]
Below1 = Annotated[float, Allowed("a number from 0 to below 1", lambda value: 0 <= value < 1)]
Finite = Annotated[float, Allowed("a finite number", math.isfinite)]
Positive = Annotated[float, Allowed("a number above 0", lambda value: 0 < value < math.inf)]
NonNegative = Annotated[float, Allowed("a number of at least 0", lambda value: 0 <= value < math.inf)]


class Settings:
    """Base of frozen dataclasses: each field is checked when an instance is made, then `relations`."""

    def __post_init__(self):
        """Raises WrongSetting for a value that its field does not allow; lists and mappings get the field's type."""
        for name, hint in _hints(type(self)).items():
            object.__setattr__(self, name, checked(hint, name, getattr(self, name)))
        self.relations()

    def relations(self) -> None:
        """Raises WrongSetting for values that do not go together."""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Inverse of `as_dict`; what is missing has its default.

        Raises:
          WrongSetting: an unknown key, or a value that is not allowed.
        """
        if not isinstance(values, Mapping):
            raise TypeError
        hints = _hints(cls)
        for key in values:
            if key not in hints:
                raise unknown(key, hints)
        for field in dataclasses.fields(cls):  # pyright: ignore[reportArgumentType]
            if field.name not in values and field.default is dataclasses.MISSING:
                raise WrongSetting(field.name, " is missing")
        return cls(**{name: checked(hints[name], name, value) for name, value in values.items()})

    def as_dict(self) -> dict[str, Any]:
        """Plain values by name, groups as dicts."""
        found = {name: getattr(self, name) for name in _hints(type(self))}
        return {name: value.as_dict() if isinstance(value, Settings) else value for name, value in found.items()}


def unknown(key: str, known: Mapping[str, Any]) -> WrongSetting:
    """The error of a key that is none of `known`."""
    near = difflib.get_close_matches(key, known, 1)
    help_ = f"did you mean {near[0]}?" if near else f"there are {', '.join(known) or 'none'}"
    return WrongSetting(key, f": no such setting; {help_}")


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    hints = get_type_hints(cls, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def checked(hint: Any, key: str, value: Any) -> Any:
    """`conform` with an error that names the key. Raises WrongSetting."""
    try:
        return conform(hint, value)
    except WrongSetting as error:
        raise error.inside(key) from None
    except (TypeError, ValueError):
        raise wrong(key, value, describe(hint)) from None


def conform(hint: Any, value: Any) -> Any:
    """`value` with lists as tuples and mappings as `Settings`, as the type `hint` wants them.

    Raises:
      TypeError, ValueError: it is of another type, or breaks a rule.
    """
    kind, *rules = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    found = _of_kind(kind, value)
    if not all(rule.holds(found) for rule in rules):
        raise ValueError
    return found


def _of_kind(kind: Any, value: Any) -> Any:
    if isinstance(kind, type) and issubclass(kind, Settings):
        return value if isinstance(value, kind) else kind.from_dict(value)
    if get_origin(kind) is tuple:
        if not isinstance(value, list | tuple):
            raise TypeError
        kinds = get_args(kind)
        kinds = kinds[:1] * len(value) if kinds[-1] is Ellipsis else kinds
        return tuple(conform(own, entry) for own, entry in zip(kinds, value, strict=True))
    types = (int, float) if kind is float else (get_origin(kind) or kind,)
    if not isinstance(value, types) or (isinstance(value, bool) and kind is not bool):
        raise TypeError
    if kind is float and math.isnan(value):
        raise ValueError
    return value


def describe(hint: Any) -> str:
    """What a type and its rule allow, in words."""
    kind, *rules = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    if rules:
        return rules[-1].text
    if get_origin(kind) is tuple:
        entries = get_args(kind)
        count = "" if entries[-1] is Ellipsis else f" of {len(entries)}"
        return f"a tuple{count}, each entry {describe(entries[0])}"
    words = {bool: "True or False", int: "a whole number", float: "a number", str: "a text"}
    return words.get(kind, "a group of settings")
