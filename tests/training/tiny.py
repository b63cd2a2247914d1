"""A detector and batches small enough to train in tests."""

import jax.numpy as jnp
import numpy as np

from c2am_jax import config as configs
from c2am_jax.data import builder, glyphs
from c2am_jax.data.box_masks import pack
from c2am_jax.structures import Batch


def tiny_config(name="tiny", method="c2am"):
    """The glyph config with a detector of toy size."""
    config = configs.glyphs(name, method)
    model = config.model
    model.backbone.width, model.fpn.channels = 8, 16
    model.rpn.samples, model.rpn.pre_nms_train, model.rpn.post_nms_train = 16, 40, 20
    model.rpn.pre_nms_test, model.rpn.post_nms_test = 40, 20
    model.box_head.fc_channels, model.box_head.samples = 16, 8
    model.mask_head.convs, model.mask_head.channels = 1, 8
    model.test.max_detections = 10
    config.data.short_sides, config.data.max_side, config.data.test_short_side = (64,), 64, 64
    config.data.buckets = ((64, 64),)
    config.train.batch_size, config.train.warmup_steps, config.train.log_every = 2, 2, 1
    return config


def second_stage_config(name, **values):
    """The config of configs/methods/NAME.py with a detector of toy size; `values` go to config.train."""
    published, config = configs.load_config(f"configs/methods/{name}.py:glyphs"), tiny_config(method="softmax")
    config.loss, config.data.sampler = published.loss, published.data.sampler
    for key in ("trainable", "reset", "grad_clip"):
        config.train[key] = published.train[key]
    for key, value in values.items():
        config.train[key] = value
    return config


def draw_glyphs(folder, **settings):
    """Make `folder` a `config.data.dir` with a prepared set of glyphs, "small", by `GlyphSettings`; returns it."""
    glyphs.generate(folder / "small", glyphs.GlyphSettings(val_images=12, val_per_category=1, **settings))
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
