"""Data and compiled steps shared by the training tests."""

import pytest


@pytest.fixture(scope="module", autouse=True)
def quickly(compile_quickly):
    """Every test here."""


@pytest.fixture(scope="session")
def glyph_folder(tmp_path_factory):
    """`config.data.dir` with a small glyph set in it, drawn and prepared once."""
    from c2am_jax.data import builder
    from c2am_jax.data import glyphs as drawing

    folder = tmp_path_factory.mktemp("data")
    small = drawing.GlyphSettings(train_images=24, val_images=12, val_per_category=1, head=20)
    drawing.generate(folder / "small", small)
    for split in ("train", "val"):
        annotations = folder / "small" / f"annotations_{split}.json"
        builder.prepare(annotations, folder / "small" / "images", f"small_{split}", folder)
    return folder
