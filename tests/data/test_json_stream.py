"""Reading large json files entry by entry."""

import hashlib
import io
import json

import numpy as np
import pytest

from c2am_jax.data import json_stream
from c2am_jax.data.json_stream import BrokenJson, read_lists


def entries(content, *keys):
    """(entries by key, counts), each entry checked to be what stands at its offset."""
    data = content if isinstance(content, bytes) else content.encode()
    found = {key: [] for key in keys}

    def handler(key):
        def take(value, offset, length):
            assert json.dumps(json.loads(data[offset : offset + length])) == json.dumps(value)
            found[key].append(value)

        return take

    counts, digest = read_lists(io.BytesIO(data), "a.json", {key: handler(key) for key in keys})
    assert digest == hashlib.sha256(data).hexdigest()
    return found, counts


@pytest.mark.parametrize("block", [1, 2, 7, 1 << 20])
@pytest.mark.parametrize("spaces", [None, 1])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_entries_are_those_of_the_whole_file(monkeypatch, block, spaces, ascii_only):
    monkeypatch.setattr(json_stream, "BLOCK", block)
    content = {
        "info": {"deep": [{"images": [1]}], "text": 'quo"te } ] \\ Ä'},
        "numbers": [12, -3.5e-7, 1234567890123, float("inf")],
        "images": [{"id": 1, "name": "Vögel 鳥 \U0001f426"}, [], {}, None, True, "x"],
        "none": [],
        "last": 123456,
    }
    text = json.dumps(content, indent=spaces, ensure_ascii=ascii_only)
    found, counts = entries(text, "images", "numbers", "none")
    assert found == {key: content[key] for key in ("images", "numbers", "none")}
    assert counts == {"numbers": 4, "images": 6, "none": 0}


def test_a_byte_order_mark_and_an_empty_object_are_read():
    assert entries(b"\xef\xbb\xbf" + b'{"a": [1, 2]}', "a")[0] == {"a": [1, 2]}
    assert entries(" {} ", "a") == ({"a": []}, {})


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("", "object at its top level"),
        ("[1]", "object at its top level"),
        ("{", "the file ends here"),
        ('{"a": [', "the file ends here"),
        ('{"a": [{"id": 1}, {"id"', "byte 18: the file ends within an entry"),
        ('{"a": [1', "the file ends here"),
        ('{"a": [1 2]}', "'2' instead of , or ]"),
        ('{"a": [1]', "the file ends here"),
        ('{"a": [1],}', 'instead of "'),
        ('{"a": [1]} x', "something follows"),
        ('{"a": 1, "a": 2}', "the key 'a' appears twice"),
        ("{1: 2}", 'instead of "'),
        ('{"a": ' + "[" * 100_000, "not a json file"),
        ('{"a": [' + "9" * 5000 + "]}", "not a json file"),
        ('{"a": ["\xff"]}'.encode("latin-1"), "not UTF-8"),
        ('{"a": [1]}'.encode("utf-16"), "object at its top level"),
    ],
)
def test_broken_files_are_one_line_with_the_place(content, named):
    with pytest.raises(BrokenJson) as error:
        entries(content, "a")
    assert str(error.value).startswith("a.json: ") and named in str(error.value) and "\n" not in str(error.value)


def test_a_broken_entry_ends_the_reading_before_the_memory_does(monkeypatch):
    monkeypatch.setattr(json_stream, "BLOCK", 100)
    monkeypatch.setattr(json_stream, "LARGEST_ENTRY", 1000)

    class Endless(io.RawIOBase):
        given = 0

        def read(self, size=-1):
            self.given += size
            assert self.given < 10_000
            return b'{"a": ["'.ljust(size, b"x") if self.given == size else b"x" * size

    with pytest.raises(BrokenJson, match="byte 7"):
        read_lists(Endless(), "a.json", {"a": lambda *_: None})


def test_every_cut_and_many_damages_are_read_as_the_whole_parser_reads_them(monkeypatch):
    monkeypatch.setattr(json_stream, "BLOCK", 16)
    rng = np.random.default_rng(0)
    whole = json.dumps({"a": [{"x": [1.5, "ö"]}, {"y": None}], "b": {"c": [2]}}, ensure_ascii=False).encode()
    cuts = [whole[:n] for n in range(len(whole))]
    damaged = []
    for _ in range(500):
        data = bytearray(whole)
        data[rng.integers(len(data))] = rng.choice(list(b'{}[]",:0e- \xc3x'))
        damaged.append(bytes(data))
    for data in cuts + damaged:
        try:
            expected = json.loads(data)
        except ValueError:
            expected = None
        try:
            found, _ = entries(data, "a")
        except BrokenJson:
            # Beyond json.loads, only this is refused.
            assert expected is None or not isinstance(expected, dict) or len(expected) < 2, data
        else:
            assert expected is not None, data
            assert found["a"] == (expected["a"] if isinstance(expected.get("a"), list) else []), data
