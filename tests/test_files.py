"""Files are whole or not there."""

import pytest

from c2am_jax.files import replace_text, replacing


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
