"""The rows of the paper's Tables 2-6 and of two comparisons of ours: configs, first stages, published numbers."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from c2am_jax.errors import UserError

BUILT_IN = ("glyphs", "glyphs_lvis")
DATA = (*BUILT_IN, "lvis_v1", "lvis_v05")
REPEAT = {"data.sampler": "repeat_factor"}
R101 = {"model.backbone.depth": 101}
# ImageNet's weights do not fit the small detector of glyphs. What compares classifiers there starts from the detector
# that cross-entropy trained with the same seed: a new classifier, and all of it trains on.
GLYPH_FIRST = "ce"
GLYPH_RECIPE = {
    "train.reset": ("*.fc_cls.*",),
    "train.steps": 300,
}
FROM_RANDOM = ("2", "two_stage")  # tables whose rows do not start so


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of a table.

    Attributes:
      key: short name for ``--rows``.
      title: first cell.
      experiment: see `config_argument`.
      overrides: config keys and values that make the row.
      first: the experiment of the first stage that a second stage starts from, "" for none.
      paper: mask AP (rare/common/frequent), box AP on LVIS v1.0, as printed; "" where the paper has none.
      paper_v05: the same on LVIS v0.5.
    """

    key: str
    title: str
    experiment: str
    overrides: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    paper: tuple[str, str] = ("", "")
    paper_v05: tuple[str, str] = ("", "")
    first: str = ""

    def published(self, data: str) -> tuple[str, str]:
        """The paper's mask AP and box AP; built-in data stands beside LVIS v1.0."""
        return self.paper_v05 if data == "lvis_v05" else self.paper


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


def _sweep(key: str, symbol: str, numbers: Mapping[float, str]) -> list[Row]:
    name = key.removeprefix("loss.")
    return [
        Row(f"{name}={v:g}", f"{symbol} = {v:g}", "c2am" if v else "cosine", {key: v} if v else {}, (ap, ""))
        for v, ap in numbers.items()
    ]


def _method(key: str, title: str, v1: tuple[str, str] = ("", ""), v05: tuple[str, str] = ("", ""), **more: Any) -> Row:
    return Row(key, title, f"methods/{key}", paper=v1, paper_v05=v05, **more)


WITHOUT_BACKGROUND = Row(
    "foreground",
    "C2AM, no margins for background",
    "c2am",
    {"loss.background": "foreground_only"},
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
}

# Methods that go on from a trained detector: `two_stage`, and those of them that Table 6 has.
SECOND_STAGES = {
    row.key: row
    for row in (
        _method("crt", "cRT, second stage", first="ce"),
        _method("lws", "LWS, second stage", v05=("23.8 (14.4/24.4/26.8)", "24.1"), first="ce"),
        _method("bags", "BAGS, second stage", v05=("26.2 (18.0/26.9/28.7)", "25.8"), first="ce"),
        _method("disalign", "DisAlign, second stage", v05=("27.9", "27.6"), first="ce"),
        _method("acsl_second_stage", "ACSL, second stage", first="ce"),
        _method("loce", "LOCE, second stage", ("26.6", "27.4"), ("28.4", "28.2"), first="ce"),
        _method(
            "balms", "BALMS, second stage", v05=("27.0 (19.6/28.9/27.5)", "27.6"), first="methods/balanced_sigmoid"
        ),
    )
}

TABLES: dict[str, tuple[str, list[Row]]] = {
    "2": (
        "detectors and backbones, cross-entropy and C2AM",
        [
            Row("mask_r50_ce", "Mask R-CNN R50, CE", "maskrcnn_r50_ce", {}, ("20.5 (1.1/-/-)", "21.4")),
            Row("mask_r50_c2am", "Mask R-CNN R50, C2AM", "maskrcnn_r50_c2am", {}, ("25.7 (13.0/25.4/31.5)", "26.5")),
            Row("mask_r101_ce", "Mask R-CNN R101, CE", "maskrcnn_r101_ce", {}, ("21.8", "22.8")),
            Row("mask_r101_c2am", "Mask R-CNN R101, C2AM", "maskrcnn_r101_c2am", {}, ("27.0 (14.1/26.7/33.0)", "28.1")),
            Row("cascade_r50_ce", "Cascade R50, CE", "cascade_r50_ce", {}, ("22.7", "25.3")),
            Row("cascade_r50_c2am", "Cascade R50, C2AM", "cascade_r50_c2am", {}, ("27.6 (14.2/27.7/33.5)", "31.1")),
            Row("cascade_r101_ce", "Cascade R101, CE", "cascade_r101_ce", {}, ("24.3", "27.0")),
            Row("cascade_r101_c2am", "Cascade R101, C2AM", "cascade_r101_c2am", {}, ("29.2 (16.8/29.1/34.7)", "32.6")),
        ],
    ),
    "3": ("scale s", _sweep("loss.scale", "s", {10: "14.2", 20: "25.4", 30: "25.7", 40: "24.8", 50: "23.6"})),
    "4": ("alpha", _sweep("loss.alpha", "α", {0: "24.1", 0.1: "24.8", 0.3: "25.3", 0.5: "25.7", 0.7: "25.4"})),
    "5": (
        "type of margin",
        [
            Row("none", "none (cosine)", "cosine", {}, ("24.1", "")),
            Row("fixed", "fixed", "methods/fixed_margin", {}, ("24.3", "")),
            Row("adaptive", "adaptive (C2AM)", "c2am", {}, ("25.7", "")),
            WITHOUT_BACKGROUND,
        ],
    ),
    "6": (
        "methods",
        [
            Row("rfs", "CE, repeat factors", "ce", REPEAT, ("23.7", "24.7"), ("25.9", "26.1")),
            _method("cbl", "CBL", v05=("23.3 (11.4/23.8/27.3)", "23.9")),
            _method("ldam", "LDAM", v05=("24.1 (14.6/25.3/26.3)", "24.5")),
            SECOND_STAGES["lws"],
            _method("eql", "EQL"),
            _method("eql_v2", "EQL v2", ("25.5 (17.7/24.3/30.2)", "26.1"), ("27.1", "27.0")),
            SECOND_STAGES["bags"],
            SECOND_STAGES["balms"],
            _method("fasa", "FASA, repeat factors", ("24.4", "24.2"), overrides=REPEAT),
            _method("forest", "Forest R-CNN", v05=("25.6 (18.3/26.4/27.6)", "25.9")),
            SECOND_STAGES["disalign"],
            _method("seesaw", "Seesaw, repeat factors", ("26.4", "27.4"), overrides=REPEAT),
            SECOND_STAGES["loce"],
            Row(
                "c2am",
                "C2AM, repeat factors",
                "c2am",
                REPEAT,
                ("27.2 (16.6/27.2/31.9)", "27.9"),
                ("29.7 (19.3/31.3/31.8)", "29.8"),
            ),
            Row("rfs_r101", "R101: CE, repeat factors", "maskrcnn_r101_ce", REPEAT, ("25.5", "26.6")),
            Row("eql_v2_r101", "R101: EQL v2", "methods/eql_v2", R101, ("27.2", "27.9")),
            Row("fasa_r101", "R101: FASA, repeat factors", "methods/fasa", {**R101, **REPEAT}, ("26.3", "27.0")),
            Row("seesaw_r101", "R101: Seesaw, repeat factors", "methods/seesaw", {**R101, **REPEAT}, ("28.1", "28.9")),
            Row("loce_r101", "R101: LOCE", "methods/loce", R101, ("28.0", "29.0"), first="maskrcnn_r101_ce"),
            Row("c2am_r101", "R101: C2AM, repeat factors", "maskrcnn_r101_c2am", REPEAT, ("28.6", "29.4")),
        ],
    ),
    "one_stage": (
        "methods of one stage",
        [
            *(Row(name, title, "ce" if name == "softmax" else f"methods/{name}") for name, title in ONE_STAGE.items()),
            WITHOUT_BACKGROUND,
        ],
    ),
    "two_stage": (
        "second stages, and the first stages that they go on from",
        [
            Row("ce", "cross-entropy, first stage", "ce"),
            _method("balanced_sigmoid", "balanced sigmoid, first stage"),
            *SECOND_STAGES.values(),
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
