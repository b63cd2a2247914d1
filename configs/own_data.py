"""Mask R-CNN R50-FPN on pictures of your own: a COCO json for training, one for validation, a folder of pictures.

python train.py --config configs/own_data.py --config.data.annotations=TRAIN.json --config.data.val_annotations=VAL.json
--config.data.images=DIR

Or one flag for a folder in a usual layout: --config.data.folder=DIR. What follows from the data (classes, sizes,
length) is derived and printed; --config.KEY=VALUE sets another value.
Another method: --config configs/own_data.py:softmax. A small detector from random weights, for small pictures and to
try things out: --config configs/own_data.py:small, or small+softmax.
"""

from c2am_jax.config import own_data_variant


def get_config(argument: str = ""):
    """`argument`: "", a name of `losses.methods` (c2am if none), "small", or both joined by +."""
    return own_data_variant(argument)
