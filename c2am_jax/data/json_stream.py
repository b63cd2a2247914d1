"""Reads the lists of a large json object entry by entry: memory holds one entry and one block of the file."""

import codecs
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, Protocol

from c2am_jax.data.lvis import AnnotationError

BLOCK = 1 << 20  # bytes read at once
LARGEST_ENTRY = 1 << 26  # bytes; what is longer is taken for a broken file
_SPACE = re.compile(r"[ \t\n\r]*")

Handler = Callable[[Any, int, int], None]


class ByteSource(Protocol):
    """What is read from: a file opened in binary mode, or something around one."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; none at the end."""
        ...


class BrokenJson(AnnotationError):
    """A file that is not json, or not an object at its top level; the text names it and the place."""


class _Reader:
    """A window on the file. Text is latin-1, one character per byte, so that positions are those of the file."""

    def __init__(self, file: ByteSource, path: str):
        self.path = path
        self.digest = hashlib.sha256()
        self._file = file
        self._decoder = json.JSONDecoder()
        self._text = ""
        self._at = 0
        self._base = 0  # position in the file of the first character of the text
        self._ended = False

    def fail(self, what: str) -> BrokenJson:
        return BrokenJson(f"{self.path}: not a json file (byte {self._base + self._at}: {what})")

    def _fill(self) -> None:
        """Read on; as much again as an entry has already, so that long entries are tried a few times only."""
        block = self._file.read(max(BLOCK, len(self._text) - self._at))
        self._ended = not block
        self.digest.update(block)
        self._base += self._at
        self._text = self._text[self._at :] + block.decode("latin-1")
        self._at = 0

    def skip_mark(self) -> None:
        """The byte order mark that some editors write."""
        mark = codecs.BOM_UTF8.decode("latin-1")
        while len(self._text) < len(mark) and not self._ended:
            self._fill()
        self._at = len(mark) if self._text.startswith(mark) else 0

    def peek(self) -> str:
        """The next character that is no space; "" at the end of the file."""
        while True:
            match = _SPACE.match(self._text, self._at)
            assert match is not None
            self._at = match.end()
            if self._at < len(self._text) or self._ended:
                return self._text[self._at : self._at + 1]
            self._fill()

    def expect(self, characters: str) -> str:
        """Consume the next character, which must be one of these."""
        found = self.peek()
        if not found:
            raise self.fail("the file ends here")
        if found not in characters:
            raise self.fail(f"{found!r} instead of {' or '.join(characters)}")
        self._at += 1
        return found

    def value(self) -> tuple[Any, int, int]:
        """The next value, where it begins and its length in bytes."""
        if not self.peek():
            raise self.fail("the file ends here")
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
                if end < len(self._text) or self._ended:  # else a number may go on
                    break
            except (ValueError, RecursionError) as error:
                available = len(self._text) - self._at
                if self._ended or available > LARGEST_ENTRY:
                    what = "the file ends within an entry" if self._ended else "an entry"
                    raise self.fail(f"{what}: {getattr(error, 'msg', error)}") from None
            self._fill()
        raw, offset = self._text[self._at : end], self._base + self._at
        if not raw.isascii():
            try:
                value = json.loads(raw.encode("latin-1").decode("utf-8"))
            except UnicodeDecodeError as error:
                raise self.fail(f"not UTF-8: {error.reason}") from None
        self._at = end
        return value, offset, len(raw)


def read_lists(file: ByteSource, path: str, handlers: Mapping[str, Handler]) -> tuple[dict[str, int], str]:
    """Call ``handlers[key](entry, offset, length)`` for every entry of the list under `key` of the top-level object.

    ``file[offset : offset + length]`` is the entry's own json, in UTF-8. Other keys are checked and passed over.

    Returns:
      How many entries each list had (all lists of the top level), and the file's SHA-256.

    Raises:
      BrokenJson: not json, not UTF-8, no object, cut off, something after its end, a key twice, an entry of more than
        64 MiB.
    """
    reader = _Reader(file, path)
    reader.skip_mark()
    if reader.peek() != "{":
        raise BrokenJson(f"{path}: not a json file with an object at its top level")
    reader.expect("{")
    keys, counts = set(), {}
    more = reader.peek() != "}"
    if not more:
        reader.expect("}")
    while more:
        if reader.peek() != '"':
            reader.expect('"')
        key, _, _ = reader.value()
        if key in keys:
            raise reader.fail(f"the key {key!r} appears twice")
        keys.add(key)
        reader.expect(":")
        if reader.peek() == "[":
            counts[key] = _read_list(reader, handlers.get(key))
        else:
            reader.value()
        more = reader.expect(",}") == ","
    if reader.peek():
        raise reader.fail("something follows the end of the object")
    return counts, reader.digest.hexdigest()


def _read_list(reader: _Reader, handler: Handler | None) -> int:
    reader.expect("[")
    if reader.peek() == "]":
        reader.expect("]")
        return 0
    count = 0
    while True:
        entry = reader.value()
        count += 1
        if handler is not None:
            handler(*entry)
        if reader.expect(",]") == "]":
            return count


def read_list(file: ByteSource, path: str, handler: Handler) -> int:
    """Call ``handler(entry, offset, length)`` for every entry of a file that is one list; returns how many there are.

    Raises:
      BrokenJson: as `read_lists`, or the top level is no list.
    """
    reader = _Reader(file, path)
    reader.skip_mark()
    if reader.peek() != "[":
        raise BrokenJson(f"{path}: not a json file whose top level is a list")
    count = _read_list(reader, handler)
    if reader.peek():
        raise reader.fail("something follows the end of the list")
    return count


def open_json(path: str) -> BinaryIO:
    """Open for reading; AnnotationError if it is not there."""
    try:
        return open(path, "rb")
    except FileNotFoundError:
        raise AnnotationError(f"{path}: no such file") from None
    except OSError as error:
        raise AnnotationError(f"{path}: cannot be read: {error.strerror or error}") from None
