"""Files are whole or not there, and locks have one holder."""

import threading
import time

import pytest

from c2am_jax.files import locked, replace_text, replacing


def test_a_file_is_replaced_at_once_and_nothing_else_stays(tmp_path):
    replace_text(tmp_path / "a.json", "old")
    with replacing(tmp_path / "a.json") as partial:
        assert partial.suffix == ".json"  # writers that choose the format by it
        partial.write_text("new")
        assert (tmp_path / "a.json").read_text() == "old"
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"a.json": "new"}


def test_an_error_leaves_the_old_file_alone(tmp_path):
    replace_text(tmp_path / "a.json", "old")
    with pytest.raises(RuntimeError), replacing(tmp_path / "a.json") as partial:
        partial.write_text("ne")
        raise RuntimeError
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"a.json": "old"}


def test_a_lock_has_one_holder_though_each_removes_it(tmp_path):
    """Each thread opens the file itself, as processes do; without a look at its name, two would hold it at once."""
    inside, most = [], []
    path = tmp_path / ".lock"

    def work():
        for _ in range(100):
            with locked(path):
                inside.append(1)
                most.append(len(inside))
                time.sleep(0)
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(most) == {1} and len(most) == 600
    assert list(tmp_path.iterdir()) == []


def test_who_waits_for_a_lock_is_told_once_and_a_failed_holder_lets_go(tmp_path):
    path, waits = tmp_path / ".lock", []

    def wait():
        with locked(path, lambda: waits.append(1)):
            waits.append("held")

    waiting = threading.Thread(target=wait)
    with pytest.raises(ZeroDivisionError), locked(path):
        waiting.start()
        while not waits:
            time.sleep(0.01)
        raise ZeroDivisionError
    waiting.join(10)
    assert waits == [1, "held"] and not path.exists()
