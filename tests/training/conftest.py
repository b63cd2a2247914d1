"""Data and compiled steps shared by the training tests."""

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache


@pytest.fixture(scope="package", autouse=True)
def compile_quickly(tmp_path_factory):
    """Runs share their compiled steps, as with JAX_COMPILATION_CACHE_DIR, and XLA spends less on optimising them."""
    chosen = {
        "jax_compilation_cache_dir": str(tmp_path_factory.mktemp("compiled")),
        "jax_disable_most_optimizations": True,
    }
    before = {name: jax.config.values[name] for name in chosen}
    for settings in (chosen, before):
        for name, value in settings.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()  # else the folder of the first compilation stays
        if settings is chosen:
            yield


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
