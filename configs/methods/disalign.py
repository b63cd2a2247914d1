"""DisAlign (distribution alignment): second stage on Mask R-CNN R50-FPN, LVIS.

python train.py --config configs/maskrcnn_r50_ce.py
python train.py --config configs/methods/disalign.py --config.train.init=runs/maskrcnn_r50_ce

LVIS v0.5: `:v05` behind both files, runs/maskrcnn_r50_ce_v05 as the first stage's folder. Built-in data:
python train.py --config configs/glyphs_ce.py
python train.py --config configs/methods/disalign.py:glyphs --config.train.init=runs/glyphs_ce

Zhang et al., CVPR 2021, Eqs. 6-11: z = q (a z + b) + (1 - q) z with q = sigmoid(v x + v_0), trained by a cross-entropy
whose class weights are r_c^-0.8; background's score stays. Instances count as the paper's "shots".
Recipe: a, b, v and v_0 alone, 9000 steps, rate 0.02, times 0.1 at 8000 (v0.5: 4500 and 4000), random sampling.
Published numbers: docs/published_methods.md.
"""

from c2am_jax.config import second_stage


def get_config(data: str = ""):
    """`data`: "" or "v1", "v05" or "glyphs"."""
    return second_stage(
        "disalign",
        data,
        trainable=("*.cls_extra.*",),
        steps=4500 if data == "v05" else 9000,
        drops=(4000,) if data == "v05" else (8000,),
    )
