"""PCB (pairwise class balance): Mask R-CNN R50-FPN on LVIS.

python train.py --config configs/methods/pcb.py            LVIS v1.0
python train.py --config configs/methods/pcb.py:v05        LVIS v0.5
python train.py --config configs/methods/pcb.py:uniform    the recipe of all methods; :v05+uniform too
python train.py --config configs/methods/pcb.py:glyphs     the built-in data

He et al., CVPR 2022: late in training, foreground samples learn soft labels too, which stand against what the running
confusion matrix says is taken for their class.
Recipe: matrix with momentum 0.99, share 0.4 after 17 of 24 epochs, repeat-factor sampling. The authors' box head runs
three times; here it runs once. On glyphs, runs are short: soft labels from step 800 of 1140 on (loss.start_step).
Published with three iterations: LVIS v1.0 with repeat factors: mask AP 26.5 (18.5/26.5/30.2), box AP 28.3; random: 22.6
(7.7/21.8/29.9), 24.1; v0.5 with repeat factors: 27.7 (21.8/28.0/29.7), 28.2.
"""

from c2am_jax.config import method

PUBLISHED = {"data.sampler": "repeat_factor"}


def get_config(argument: str = ""):
    """`argument`: see `c2am_jax.config.method`."""
    config = method("pcb", argument, published=PUBLISHED)
    if argument == "glyphs":
        config.loss.start_epoch, config.loss.start_step = 0, 800
    return config
