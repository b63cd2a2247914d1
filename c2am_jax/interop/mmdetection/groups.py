"""What the rules write and read: notes of what became of a config, and its dicts, which know what was read."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from c2am_jax.interop.mmdetection.config import Unreadable

_ABSENT = object()


class Refused(Exception):
    """A value that this package has no counterpart for, and that would change numbers."""


@dataclasses.dataclass
class Notes:
    """What became of a config.

    Attributes:
      values: our key -> its value and the key that it comes from.
      left_out: what has no counterpart and changes no number, or that the user has to know.
      refused: what cannot be translated.
      data: "lvis_v1", "lvis_v05", "coco" or "" for other files.
      cascade: several stages.
    """

    values: dict[str, tuple[Any, str]] = dataclasses.field(default_factory=dict)
    left_out: list[str] = dataclasses.field(default_factory=list)
    refused: list[str] = dataclasses.field(default_factory=list)
    data: str = ""
    cascade: bool = False

    def found(self, key: str, value: Any, source: str) -> None:
        """Our `key` has this value, which theirs of the name `source` gave."""
        self.values[key] = (value, source)

    def leave(self, text: str) -> None:
        """Say what is left out, as ``KEY: WHY``."""
        self.left_out.append(text)


class Group:
    """A dict of their config; it knows which of its keys were read."""

    def __init__(self, values: Mapping[str, Any], path: str):
        self.values, self.path = values, path
        self.read: set[str] = set()
        self.inner: dict[str, list[Group]] = {}

    def key(self, name: str) -> str:
        """The whole name of one of its keys."""
        return f"{self.path}.{name}".lstrip(".")

    def has(self, name: str) -> bool:
        """Whether it is there and not None."""
        return self.values.get(name) is not None

    def take(self, name: str, default: Any = _ABSENT) -> Any:
        """The value of a key. Raises Refused if it needs running, or is missing and has no default."""
        self.read.add(name)
        value = self.values.get(name, default)
        if value is _ABSENT:
            raise Refused(f"{self.key(name)} is missing")
        unreadable = next(_unreadable(value), None)
        if unreadable is not None:
            raise Refused(f"{self.key(name)} needs code to be run: {unreadable}; write its value")
        return value

    def skip(self, *names: str) -> None:
        """Keys that change no number here."""
        self.read |= set(names)

    def need(self, name: str, *allowed: Any, default: Any = _ABSENT) -> Any:
        """The value, which has to be one of those allowed. Raises Refused."""
        value = self.take(name, default)
        if not any(_plain(value) == _plain(one) for one in allowed):
            raise Refused(f"{self.key(name)}={shortened(value)} (must be {' or '.join(map(str, allowed))})")
        return value

    def need_defaults(self, **values: Any) -> None:
        """Keys that may say nothing else than MMDetection's default, here `values`. Raises Refused."""
        for name, value in values.items():
            self.need(name, value, default=value)

    def group(self, name: str) -> "Group":
        """The dict of a key; an empty one if it is missing or None. Raises Refused for anything else."""
        found = self.groups(name)
        if len(found) > 1 or isinstance(self.values.get(name), list | tuple):
            raise Refused(f"{self.key(name)}: one dict is expected, not a list")
        return found[0] if found else Group({}, self.key(name))

    def groups(self, name: str) -> list["Group"]:
        """The dicts of a key that holds a list of them, or one."""
        if name not in self.inner:
            value = self.take(name, None) if isinstance(self.values.get(name), Unreadable) else self.values.get(name)
            self.read.add(name)
            listed = isinstance(value, list | tuple)
            entries = list(value) if listed else [] if value is None else [value]
            for entry in entries:
                if not isinstance(entry, Mapping):
                    raise Refused(f"{self.key(name)}={str(entry)}: a dict is expected")
            names = [f"{name}[{i}]" if listed else name for i in range(len(entries))]
            self.inner[name] = [Group(entry, self.key(own)) for own, entry in zip(names, entries, strict=True)]
        return self.inner[name]

    def left(self) -> Iterable[str]:
        """``KEY=VALUE`` of everything that was not read."""
        for name, value in self.values.items():
            if name in self.inner:
                for inner in self.inner[name]:
                    yield from inner.left()
            elif name not in self.read:
                yield f"{self.key(name)}={shortened(value)}"


def _unreadable(value: Any) -> Iterator[Unreadable]:
    if isinstance(value, Unreadable):
        yield value
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    for entry in inner:
        yield from _unreadable(entry)


def _plain(value: Any) -> Any:
    return [_plain(entry) for entry in value] if isinstance(value, list | tuple) else value


def shortened(value: Any) -> str:
    """A value as one line of at most 60 letters."""
    text = " ".join(str(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."


def attempt(notes: Notes, part: Callable[..., Any], *arguments: Any) -> Any:
    """Call a part; what it refuses is noted, so that one run tells all."""
    try:
        return part(*arguments)
    except Refused as refused:
        notes.refused.append(str(refused))
    except (TypeError, ValueError, AttributeError, KeyError) as error:  # a text for a number, a number for a list
        where = next((given.path for given in arguments if isinstance(given, Group)), "")
        notes.refused.append(f"{where or 'the config'} has a value of another kind than MMDetection takes: {error}")


def nothing_left(group: Group, notes: Notes) -> None:
    """Refuse every key of a group that no rule has read."""
    notes.refused += [f"{left} has no counterpart" for left in group.left()]
