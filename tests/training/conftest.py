"""Data and compiled steps shared by the training tests."""

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache


@pytest.fixture(scope="session", autouse=True)
def compile_once(tmp_path_factory):
    """Runs of one test session share their compiled steps, as with JAX_COMPILATION_CACHE_DIR."""
    if not jax.config.jax_compilation_cache_dir:
        jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("compiled")))
        compilation_cache.reset_cache()  # earlier tests settled that there is none


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
