"""Forest R-CNN: Mask R-CNN R50-FPN on LVIS.

python train.py --config configs/maskrcnn_r50_ce.py
python train.py --config configs/methods/forest.py --config.loss.visual=runs/maskrcnn_r50_ce     LVIS v1.0
python train.py --config configs/methods/forest.py                                               without the visual tree
python train.py --config configs/methods/forest.py:v05                                           LVIS v0.5
python train.py --config configs/methods/forest.py:uniform    the recipe of all methods; :v05+uniform too
python train.py --config configs/methods/forest.py:glyphs     the built-in data

Wu et al., ACM MM 2020: classifiers of parents in several trees calibrate that of the classes, masks are predicted per
geometric parent, proposals near rare objects survive a laxer NMS. `c2am_jax/data/hierarchy.py` says how trees are made;
docs/published_methods.md what differs from the authors' code.
Recipe: 24 epochs, short side 800, 2000 proposals, gradient norm up to 35, random sampling.
Published numbers: docs/published_methods.md.
"""

from c2am_jax.config import method

PUBLISHED = {"data.short_sides": (800,), "model.rpn.post_nms_train": 2000, "train.grad_clip": 35.0}


def get_config(argument: str = ""):
    """`argument`: see `c2am_jax.config.method`."""
    config = method("forest", argument, published=PUBLISHED)
    config.model.rpn.resampling_ious = (0.9, 0.8, 0.7)
    if not argument.startswith("glyphs"):  # whose masks are of no class
        config.model.mask_head.geometric = True
    return config
