"""Prepared data of a bucket on this machine: copied once, checked, and resumed where it was cut off."""

import os
import shutil

import numpy as np
import pytest

from c2am_jax import storage
from c2am_jax.data import cached
from c2am_jax.data.cached import local_copy
from c2am_jax.storage import StorageError

FOLDER = "data/lvis_layout/birds_train/1.1.0"
SIZES = {"shard-0": 5000, "shard-1": 3000, "report.json": 10, "empty": 0}


@pytest.fixture(autouse=True)
def hasty(tmp_path, monkeypatch):
    """Blocks of 1000 bytes, no long pauses, a cache for the test, and nothing remembered."""
    monkeypatch.setenv("C2AM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cached, "BLOCK", 1000)
    monkeypatch.setattr(cached, "PAUSES", (0.05,))
    monkeypatch.setattr(storage, "BLOCK_S", 0.2)
    local_copy.cache_clear()


@pytest.fixture
def contents(emulator, monkeypatch):
    monkeypatch.setattr(emulator, "cut", None)
    rng = np.random.default_rng(0)
    made = {name: rng.bytes(size) for name, size in SIZES.items()}
    for name, content in made.items():
        emulator.buckets["pods"].put(f"{FOLDER}/{name}", content)
    return made


def copied():
    """The copy as a new process finds it, by name."""
    local_copy.cache_clear()
    place = local_copy(f"gs://pods/{FOLDER}", "birds_train")
    return {path.name: path.read_bytes() for path in place.iterdir()}


def downloads(emulator):
    """Names of the files that were asked for, a name for each request."""
    return [path.split("?")[0].rpartition("%2F")[2] for _, path in emulator.requests if "alt=media" in path]


def test_all_is_copied_once(emulator, contents, caplog):
    caplog.set_level("INFO", logger="c2am_jax")
    emulator.requests.clear()
    assert copied() == contents
    assert sorted(downloads(emulator)) == ["report.json", *["shard-0"] * 5, *["shard-1"] * 3]
    assert f"birds_train: copying 4 files, 0 MB, from gs://pods/{FOLDER} to " in caplog.text
    emulator.requests.clear()
    assert copied() == contents and not downloads(emulator) and len(emulator.requests) == 1


def test_a_copy_that_was_cut_off_goes_on(emulator, contents, caplog):
    caplog.set_level("INFO", logger="c2am_jax")
    seen = []

    def after_three(method, path):
        seen.extend([path] if "shard-0" in path and "alt=media" in path else [])
        return 503 if len(seen) > 3 and path == seen[-1] else None

    emulator.refuse, before = after_three, emulator.refuse
    with pytest.raises(StorageError, match="shard-0: the bucket cannot be reached .* to resume from there"):
        copied()
    emulator.refuse = before
    emulator.requests.clear()
    caplog.clear()
    assert copied() == contents
    assert downloads(emulator).count("shard-0") == 2 and ", from 0 MB on" in caplog.text


def test_a_connection_that_breaks_is_tried_again(emulator, contents):
    emulator.cut = 500
    with pytest.raises(StorageError, match="run the same command again"):
        copied()
    emulator.cut = None
    assert copied() == contents


def test_what_is_damaged_here_or_new_there_is_copied_again(emulator, contents, caplog):
    place = local_copy(f"gs://pods/{FOLDER}", "birds_train")
    content = bytearray(contents["shard-0"])
    content[77] ^= 1
    (place / "shard-0").write_bytes(content)
    (place / "shard-9").write_bytes(b"of an older preparation")
    emulator.buckets["pods"].put(f"{FOLDER}/report.json", b"0123456789")
    emulator.requests.clear()
    assert copied() == contents | {"report.json": b"0123456789"}
    assert set(downloads(emulator)) == {"shard-0", "report.json"}
    assert "shard-0 is not (any more) the file that gs://pods/" in caplog.text
    os.utime(place / "shard-1")  # another time, the same bytes
    emulator.requests.clear()
    assert copied() and not downloads(emulator)


def test_what_arrives_damaged_is_copied_again_once(emulator, contents, monkeypatch, caplog):
    whole, damaged = cached.read_range, []

    def read_range(source, generation, begin, end):
        block = whole(source, generation, begin, end)
        if source.endswith("shard-1") and begin == 1000 and len(damaged) < 1:
            damaged.append(block)
            return bytes(len(block))
        return block

    monkeypatch.setattr(cached, "read_range", read_range)
    assert copied() == contents and damaged and "shard-1 arrived damaged: it is copied again" in caplog.text

    shutil.rmtree(storage.cache_folder("data"))
    monkeypatch.setattr(cached, "read_range", lambda source, generation, begin, end: bytes(end - begin))
    with pytest.raises(StorageError, match="what arrives has another checksum than the bucket says, twice"):
        copied()


def test_a_disk_that_is_too_small_is_told_before_anything_is_copied(emulator, contents, monkeypatch):
    emulator.requests.clear()
    monkeypatch.setattr(cached.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 0, 10))
    with pytest.raises(StorageError, match="of birds_train are to be copied here .* set C2AM_CACHE to a folder"):
        copied()
    assert not downloads(emulator)


def test_nothing_there_is_told(emulator):
    with pytest.raises(StorageError, match="gs://pods/none: nothing is there"):
        local_copy("gs://pods/none", "birds_train")
