"""A detector and batches small enough to train in tests."""

import jax.numpy as jnp
import numpy as np

from c2am_jax.config import glyphs, load_experiment, parse
from c2am_jax.data import builder
from c2am_jax.data import glyphs as pictures
from c2am_jax.data.box_masks import pack
from c2am_jax.structures import Batch

# A detector that commands of tests train in seconds.
SMALL_MODEL = {
    "model.backbone.width": 8,
    "model.fpn.channels": 16,
    "model.rpn.samples": 16,
    "model.rpn.pre_nms_train": 40,
    "model.rpn.post_nms_train": 20,
    "model.rpn.pre_nms_test": 40,
    "model.rpn.post_nms_test": 20,
    "model.box_head.fc_channels": 16,
    "model.box_head.samples": 8,
    "model.mask_head.convs": 1,
    "model.mask_head.channels": 8,
    "model.test.max_detections": 10,
}
TINY = SMALL_MODEL | {
    "data.short_sides": (64,),
    "data.max_side": 64,
    "data.test_short_side": 64,
    "data.buckets": ((64, 64),),
    "train.batch_size": 2,
    "train.warmup_steps": 2,
    "train.log_every": 1,
}


def tiny_config(name="tiny", method="c2am", **changes):
    """The glyph experiment with a detector of toy size; `changes` by key, `data__name` for "data.name"."""
    found = parse(glyphs(name, method))
    return found.changed(TINY | {key.replace("__", "."): value for key, value in changes.items()})


def second_stage_config(name, **values):
    """The experiment of configs/methods/NAME.py with a detector of toy size; `values` go to config.train."""
    published = load_experiment(f"methods/{name}:glyphs")
    train = {key: getattr(published.train, key) for key in ("trainable", "reset", "grad_clip")} | values
    changes = {f"train.{key}": value for key, value in train.items()} | {"data.sampler": published.data.sampler}
    return tiny_config(method=published.loss.name).changed(changes)


def draw_glyphs(folder, **settings):
    """Make `folder` a `config.data.dir` with a prepared set of glyphs, "small", by `GlyphSettings`; returns it."""
    pictures.generate(folder / "small", pictures.GlyphSettings(val_images=12, val_per_category=1, **settings))
    for split in ("train", "val"):
        annotations = folder / "small" / f"annotations_{split}.json"
        builder.prepare(annotations, folder / "small" / "images", f"small_{split}", folder)
    return folder


def random_batch(images, seed=0, size=64):
    """Images of noise with two boxes each."""
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, size / 2, (images, 3, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(12, size / 2, (images, 3, 2))], -1)
    masks = np.ones((images, 3, 112, 112), np.uint8)
    return Batch(
        image=jnp.asarray(rng.integers(0, 256, (images, size, size, 3), np.uint8)),
        source_hw=jnp.full((images, 2), size, jnp.int32),
        target_hw=jnp.full((images, 2), size, jnp.int32),
        flip=jnp.asarray(rng.random(images) < 0.5),
        boxes=jnp.asarray(boxes, jnp.float32),
        labels=jnp.asarray(rng.integers(0, 100, (images, 3)), jnp.int32),
        masks=jnp.asarray(pack(masks)),
        valid=jnp.asarray(np.array([[True, True, False]] * images)),
        image_id=jnp.arange(images),
    )
