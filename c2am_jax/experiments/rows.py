"""The rows of the paper's Tables 2-6 and of comparisons of ours: configs and first stages.

Their published numbers stand in `experiments.published`, by table and key.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from c2am_jax.errors import UserError

BUILT_IN = ("glyphs", "glyphs_lvis")
DATA = (*BUILT_IN, "lvis_v1", "lvis_v05")
REPEAT = {"data.sampler": "repeat_factor"}
R101 = {"model.backbone.depth": 101}
# ImageNet's weights do not fit the small detector of glyphs. What compares classifiers there starts from the detector
# that cross-entropy trained with the same seed: a new classifier, and all of it trains.
GLYPH_FIRST = "ce"
GLYPH_RECIPE = {
    "train.reset": ("*.fc_cls.*",),
    "train.steps": 300,
}
FROM_RANDOM = ("2", "two_stage", "box_regression")  # tables whose rows do not start so


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of a table.

    Attributes:
      key: short name for ``--rows``.
      title: first cell.
      experiment: see `config_argument`.
      overrides: config keys and values that make the row.
      first: the experiment of the first stage that a second stage starts from, "" for none.
    """

    key: str
    title: str
    experiment: str
    overrides: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    first: str = ""


def config_argument(experiment: str, data: str) -> str | None:
    """The argument of train.py's ``--config``; None if the experiment does not exist on `data`.

    An experiment is a config file without folder and ``.py``: "c2am" stands for glyphs_c2am and maskrcnn_r50_c2am,
    other names with a detector in front are LVIS's own, "methods/NAME" and the user's "FOLDER/FILE.py" are on both.
    """
    if experiment.startswith("methods/") or experiment.endswith(".py"):
        version = {"glyphs": ":glyphs", "glyphs_lvis": ":glyphs_lvis", "lvis_v1": "", "lvis_v05": ":v05"}[data]
        return f"{experiment}{version}"
    detector, _, method = experiment.rpartition("_")
    if data not in BUILT_IN:
        return f"{detector or 'maskrcnn_r50'}_{method}{':v05' if data == 'lvis_v05' else ''}"
    small = {"": data, "maskrcnn_r50": data, "cascade_r50": "glyphs_cascade" if data == "glyphs" else None}.get(
        detector
    )
    return f"{small}_{method}" if small else None


def _sweep(key: str, symbol: str, values: Iterable[float]) -> list[Row]:
    name = key.removeprefix("loss.")
    return [Row(f"{name}={v:g}", f"{symbol} = {v:g}", "c2am" if v else "cosine", {key: v} if v else {}) for v in values]


def _method(key: str, title: str, **more: Any) -> Row:
    return Row(key, title, f"methods/{key}", **more)


TO_THE_LETTER = Row(
    "background",
    "C2AM, margins for background too",
    "c2am",
    {"loss.background": "all"},
)

# The rules for margins of background samples, and the part of Table 4 that has margins.
RULES = {"foreground_only": "no margins for background", "all": "margins for background too"}
ALPHAS = (0.1, 0.3, 0.5, 0.7)

BOX_REGRESSION = (
    ("class", "of each class", {"model.box_head.class_agnostic": False}),
    ("shared", "shared", {"model.box_head.class_agnostic": True}),
    (
        "mixed",
        "half of each",
        {"model.box_head.class_agnostic": False, "model.box_head.class_agnostic_branch": True},
    ),
)

# Methods of one stage that no table of the paper has together: `one_stage`, on the same detector, data and schedule.
ONE_STAGE = {
    "softmax": "softmax cross-entropy",
    "cosine": "cosine softmax (NormFace)",
    "c2am": "C2AM",
    "fixed_margin": "fixed margin",
    "cosface": "CosFace",
    "arcface": "ArcFace",
    "sphereface": "SphereFace",
    "cbl": "CBL",
    "ldam": "LDAM",
    "eql": "EQL",
    "eql_v2": "EQL v2",
    "balanced_softmax": "balanced softmax",
    "balanced_sigmoid": "balanced sigmoid",
    "seesaw": "Seesaw",
    "acsl": "ACSL",
    "ecm": "ECM",
    "gol": "GOL",
    "efl": "EFL weights",
    "fasa": "FASA",
    "forest": "Forest R-CNN",
    "bacl": "BACL",
}
# Its soft labels start late, after 17 of 24 epochs; of the 300 steps on glyphs this is the same share.
PCB = Row("pcb", "PCB", "methods/pcb", {"loss.start_step": 212})

# Methods that start from a trained detector: `two_stage`, and those of them that Table 6 has.
SECOND_STAGES = {
    row.key: row
    for row in (
        _method("crt", "cRT, second stage", first="ce"),
        _method("lws", "LWS, second stage", first="ce"),
        _method("bags", "BAGS, second stage", first="ce"),
        _method("disalign", "DisAlign, second stage", first="ce"),
        _method("acsl_second_stage", "ACSL, second stage", first="ce"),
        _method("loce", "LOCE, second stage", first="ce"),
        _method("balms", "BALMS, second stage", first="methods/balanced_sigmoid"),
        _method("bacl_second_stage", "BACL, second stage", first="methods/bacl_first_stage"),
    )
}

TABLES: dict[str, tuple[str, list[Row]]] = {
    "2": (
        "detectors and backbones, cross-entropy and C2AM",
        [
            Row("mask_r50_ce", "Mask R-CNN R50, CE", "maskrcnn_r50_ce"),
            Row("mask_r50_c2am", "Mask R-CNN R50, C2AM", "maskrcnn_r50_c2am"),
            Row("mask_r101_ce", "Mask R-CNN R101, CE", "maskrcnn_r101_ce"),
            Row("mask_r101_c2am", "Mask R-CNN R101, C2AM", "maskrcnn_r101_c2am"),
            Row("cascade_r50_ce", "Cascade R50, CE", "cascade_r50_ce"),
            Row("cascade_r50_c2am", "Cascade R50, C2AM", "cascade_r50_c2am"),
            Row("cascade_r101_ce", "Cascade R101, CE", "cascade_r101_ce"),
            Row("cascade_r101_c2am", "Cascade R101, C2AM", "cascade_r101_c2am"),
        ],
    ),
    "3": ("scale s", _sweep("loss.scale", "s", (10, 20, 30, 40, 50))),
    "4": ("alpha", _sweep("loss.alpha", "α", (0, 0.1, 0.3, 0.5, 0.7))),
    "5": (
        "type of margin",
        [
            Row("none", "none (cosine)", "cosine"),
            Row("fixed", "fixed", "methods/fixed_margin"),
            Row("adaptive", "adaptive (C2AM)", "c2am"),
            TO_THE_LETTER,
        ],
    ),
    "6": (
        "methods",
        [
            Row("rfs", "CE, repeat factors", "ce", REPEAT),
            _method("cbl", "CBL"),
            _method("ldam", "LDAM"),
            SECOND_STAGES["lws"],
            _method("eql", "EQL"),
            _method("eql_v2", "EQL v2"),
            SECOND_STAGES["bags"],
            SECOND_STAGES["balms"],
            _method("fasa", "FASA, repeat factors", overrides=REPEAT),
            _method("forest", "Forest R-CNN"),
            SECOND_STAGES["disalign"],
            _method("seesaw", "Seesaw, repeat factors", overrides=REPEAT),
            SECOND_STAGES["loce"],
            Row(
                "c2am",
                "C2AM, repeat factors",
                "c2am",
                REPEAT,
            ),
            Row("rfs_r101", "R101: CE, repeat factors", "maskrcnn_r101_ce", REPEAT),
            Row("eql_v2_r101", "R101: EQL v2", "methods/eql_v2", R101),
            Row("fasa_r101", "R101: FASA, repeat factors", "methods/fasa", {**R101, **REPEAT}),
            Row("seesaw_r101", "R101: Seesaw, repeat factors", "methods/seesaw", {**R101, **REPEAT}),
            Row("loce_r101", "R101: LOCE", "methods/loce", R101, first="maskrcnn_r101_ce"),
            Row("c2am_r101", "R101: C2AM, repeat factors", "maskrcnn_r101_c2am", REPEAT),
        ],
    ),
    "one_stage": (
        "methods of one stage",
        [
            *(Row(name, title, "ce" if name == "softmax" else f"methods/{name}") for name, title in ONE_STAGE.items()),
            PCB,
            TO_THE_LETTER,
        ],
    ),
    "two_stage": (
        "second stages, and the first stages that they start from",
        [
            Row("ce", "cross-entropy, first stage", "ce"),
            _method("balanced_sigmoid", "balanced sigmoid, first stage"),
            _method("bacl_first_stage", "BACL, first stage"),
            *SECOND_STAGES.values(),
        ],
    ),
    "background": (
        "alpha with and without margins for background samples",
        [
            Row("ce", "cross-entropy", "ce"),
            Row("cosine", "α = 0 (cosine)", "cosine"),
            *(
                Row(f"{rule}={a:g}", f"α = {a:g}, {title}", "c2am", {"loss.alpha": a, "loss.background": rule})
                for rule, title in RULES.items()
                for a in ALPHAS
            ),
        ],
    ),
    "fixed_margin": (
        "the fixed margin of Table 5, in radians",
        [
            Row("none", "none (cosine)", "cosine"),
            *(
                Row(f"margin={m:g}", f"fixed, m = {m:g}", "methods/fixed_margin", {"loss.margin": m})
                for m in (0.05, 0.1, 0.15, 0.2, 0.25, 0.3)
            ),
            Row("adaptive", "adaptive (C2AM)", "c2am"),
        ],
    ),
    "box_regression": (
        "box regression: weights of each class, the same for all, half of each",
        [
            Row(f"{loss}_{key}", f"{title}, {how}", loss, values)
            for loss, title in (("ce", "CE"), ("c2am", "C2AM"))
            for key, how, values in BOX_REGRESSION
        ],
    ),
}


def _exists(row: Row, data: str) -> bool:
    of_r101 = R101.items() <= row.overrides.items()
    return config_argument(row.experiment, data) is not None and not (data in BUILT_IN and of_r101)


def start_of(table: str, row: Row, data: str) -> tuple[str, Mapping[str, Any]]:
    """The experiment that a row starts from, "" for none, and the overrides that come with it.

    Second stages have their own. On glyphs all others start from `GLYPH_FIRST` by `GLYPH_RECIPE`, but those of the
    tables `FROM_RANDOM`.
    """
    if row.first or data != "glyphs" or table in FROM_RANDOM:
        return row.first, {}
    return GLYPH_FIRST, GLYPH_RECIPE


def rows_of(table: str, data: str, chosen: list[str] | None = None) -> list[Row]:
    """The rows of a table that exist on `data`, or the `chosen` ones: keys, and config files of the user's.

    Raises:
      UserError: a key that the table does not have there.
    """
    rows = [row for row in TABLES[table][1] if _exists(row, data)]
    rows += [Row(key, Path(key).stem, key) for key in chosen or [] if key.endswith(".py")]
    known = [row.key for row in rows]
    unknown = sorted(set(chosen or []) - set(known))
    if unknown:
        raise UserError(f"--rows {' '.join(unknown)}: table {table} on {data} has {' '.join(known)}, or give a FILE.py")
    return [row for row in rows if not chosen or row.key in chosen]
