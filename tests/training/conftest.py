"""Data and compiled steps shared by the training tests."""

import pytest


@pytest.fixture(scope="module", autouse=True)
def quickly(compile_quickly):
    """Every test here."""


@pytest.fixture(scope="session")
def glyph_folder(tmp_path_factory):
    """`config.data.dir` with a small glyph set in it, drawn and prepared once."""
    from tiny import draw_glyphs

    return draw_glyphs(tmp_path_factory.mktemp("data"), train_images=24, head=20)
