"""BALMS (balanced meta-softmax): second stage on Mask R-CNN R50-FPN, LVIS.

python train.py --config configs/methods/balanced_sigmoid.py --config.data.sampler=repeat_factor_stochastic
python train.py --config configs/methods/balms.py --config.train.init=runs/maskrcnn_r50_balanced_sigmoid

LVIS v0.5: `:v05` behind both files, runs/maskrcnn_r50_balanced_sigmoid_v05 as the first stage's folder. Built-in data:
python train.py --config configs/methods/balanced_sigmoid.py:glyphs
python train.py --config configs/methods/balms.py:glyphs --config.train.init=runs/glyphs_balanced_sigmoid

Ren et al., NeurIPS 2020, sections 3.1 and 3.3, sigmoid form of the authors' LVIS code: foreground logits shifted by the
log odds of the class's image frequency, RoIs weighted by class with weights that a meta step learns.
Recipe: the classifier alone, 22 000 steps, rate 0.02, times 0.1 at 11 000 and 18 000, repeat factors, Adam 0.01 on the
weights. `c2am_jax/losses/methods/balms.py` says what stands for the authors' meta batch. The authors' first stage
trains a plain sigmoid loss; here it is the balanced one.
Published numbers: docs/published_methods.md.
"""

from c2am_jax.config import second_stage


def get_config(data: str = ""):
    """`data`: "" or "v1", "v05" or "glyphs"."""
    return second_stage(
        "balms",
        data,
        trainable=("*.fc_cls.*",),
        sampler="repeat_factor_stochastic",
        steps=22_000,
        drops=(11_000, 18_000),
    )
