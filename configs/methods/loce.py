"""LOCE (loss-guided training): second stage on Mask R-CNN R50-FPN, LVIS.

python train.py --config configs/maskrcnn_r50_ce.py
python train.py --config configs/methods/loce.py --config.train.init=runs/maskrcnn_r50_ce

LVIS v0.5: `:v05` behind both files, runs/maskrcnn_r50_ce_v05 as the first stage's folder. Built-in data:
python train.py --config configs/glyphs_ce.py
python train.py --config configs/methods/loce.py:glyphs --config.train.init=runs/glyphs_ce

Feng et al., ICCV 2021, Eqs. 2-6: logits shifted by the log of each class's mean score, and remembered features of
classes that score low. `c2am_jax/losses/methods/loce.py` says what differs from the authors' code.
Recipe: classifier, box regression, RPN and mask head, 6 epochs, rate 0.02, times 0.1 after 3 and 5, random sampling.
The authors use a normalised mask predictor, which these configs do not have.
Published numbers: docs/published_methods.md.
"""

from c2am_jax.config import second_stage

TRAINABLE = ("*.fc_cls.*", "*.fc_reg.*", "rpn_head.*", "roi_head.mask_head.*")


def get_config(data: str = ""):
    """`data`: "" or "v1", "v05" or "glyphs"."""
    return second_stage("loce", data, trainable=TRAINABLE, epochs=6, drops=(3, 5))
