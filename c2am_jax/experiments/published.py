"""Published numbers, each in this one place: the tables of C2AM's paper, and what the authors of each method report.

Tables of the docs are rendered from here (``python tools/tables.py``); `experiments.table` prints them beside ours.
All are percent on the validation set with R50-FPN unless a row says otherwise, written as printed: mask AP, in brackets
that of rare, common and frequent categories, and box AP.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Numbers:
    """One published result.

    Attributes:
      mask: mask AP in %, with (rare/common/frequent) where printed; "" for none.
      box: box AP in %; "" for none.
    """

    mask: str = ""
    box: str = ""

    def __str__(self) -> str:
        """Both in one cell: mask AP, then box AP."""
        return self.mask + (f", box {self.box}" if self.box and self.mask else f"box {self.box}" if self.box else "")


@dataclasses.dataclass(frozen=True)
class Result:
    """What a row or a method reaches on LVIS v1.0 and on v0.5; `note` says under which conditions."""

    v1: Numbers = Numbers()
    v05: Numbers = Numbers()
    note: str = ""


def _sweep(setting: str, mask: dict[float, str]) -> dict[str, Result]:
    return {f"{setting}={value:g}": Result(Numbers(ap)) for value, ap in mask.items()}


# The paper's tables, by the keys of `experiments.rows`.
PAPER: dict[str, dict[str, Result]] = {
    "2": {
        "mask_r50_ce": Result(Numbers("20.5 (1.1/18.6/31.0)", "21.4")),
        "mask_r50_c2am": Result(Numbers("25.7 (13.0/25.4/31.5)", "26.5")),
        "mask_r101_ce": Result(Numbers("21.8", "22.8")),
        "mask_r101_c2am": Result(Numbers("27.0 (14.1/26.7/33.0)", "28.1")),
        "cascade_r50_ce": Result(Numbers("22.7", "25.3")),
        "cascade_r50_c2am": Result(Numbers("27.6 (14.2/27.7/33.5)", "31.1")),
        "cascade_r101_ce": Result(Numbers("24.3", "27.0")),
        "cascade_r101_c2am": Result(Numbers("29.2 (16.8/29.1/34.7)", "32.6")),
    },
    "3": _sweep("scale", {10: "14.2", 20: "25.4", 30: "25.7", 40: "24.8", 50: "23.6"}),
    "4": _sweep("alpha", {0: "24.1", 0.1: "24.8", 0.3: "25.3", 0.5: "25.7", 0.7: "25.4"}),
    "5": {
        "none": Result(Numbers("24.1")),
        "fixed": Result(Numbers("24.3")),
        "adaptive": Result(Numbers("25.7")),
    },
    "6": {
        "rfs": Result(Numbers("23.7", "24.7"), Numbers("25.9", "26.1")),
        "cbl": Result(v05=Numbers("23.3 (11.4/23.8/27.3)", "23.9")),
        "ldam": Result(v05=Numbers("24.1 (14.6/25.3/26.3)", "24.5")),
        "lws": Result(v05=Numbers("23.8 (14.4/24.4/26.8)", "24.1")),
        "eql_v2": Result(Numbers("25.5 (17.7/24.3/30.2)", "26.1"), Numbers("27.1", "27.0")),
        "bags": Result(v05=Numbers("26.2 (18.0/26.9/28.7)", "25.8")),
        "balms": Result(v05=Numbers("27.0 (19.6/28.9/27.5)", "27.6")),
        "fasa": Result(Numbers("24.4", "24.2")),
        "forest": Result(v05=Numbers("25.6 (18.3/26.4/27.6)", "25.9")),
        "disalign": Result(v05=Numbers("27.9", "27.6")),
        "seesaw": Result(Numbers("26.4", "27.4")),
        "loce": Result(Numbers("26.6", "27.4"), Numbers("28.4", "28.2")),
        "c2am": Result(Numbers("27.2 (16.6/27.2/31.9)", "27.9"), Numbers("29.7 (19.3/31.3/31.8)", "29.8")),
        "rfs_r101": Result(Numbers("25.5", "26.6")),
        "eql_v2_r101": Result(Numbers("27.2", "27.9")),
        "fasa_r101": Result(Numbers("26.3", "27.0")),
        "seesaw_r101": Result(Numbers("28.1", "28.9")),
        "loce_r101": Result(Numbers("28.0", "29.0")),
        "c2am_r101": Result(Numbers("28.6", "29.4")),
    },
}
PAPER["two_stage"] = PAPER["6"]
PAPER["fixed_margin"] = {key: PAPER["5"][key] for key in ("none", "adaptive")}


def paper(table: str, key: str, data: str) -> Numbers:
    """The paper's numbers of a row of `experiments.rows`; glyphs stands beside LVIS v1.0. Empty where it has none."""
    result = PAPER.get(table, {}).get(key, Result())
    return result.v05 if data == "lvis_v05" else result.v1


_TABLE_6 = PAPER["6"]

# Methods by the name of their file in configs/methods/; calibrations by their own.
METHODS: dict[str, Result] = {
    "softmax": Result(PAPER["2"]["mask_r50_ce"].v1, note="other public baselines 18.3 to 18.8"),
    "cosine": Result(Numbers("24.1 (9.6/23.2/31.5)", "24.8"), note="C2AM's paper, Table 4, α = 0"),
    "c2am": Result(
        PAPER["2"]["mask_r50_c2am"].v1, _TABLE_6["c2am"].v05, "v1.0 with repeat factors 27.2; v0.5 with them"
    ),
    "fixed_margin": Result(PAPER["5"]["fixed"].v1, note="C2AM's paper; its margin is not printed"),
    "cbl": Result(v05=_TABLE_6["cbl"].v05),
    "ldam": Result(v05=_TABLE_6["ldam"].v05),
    "balanced_sigmoid": Result(v05=Numbers("26.4", "25.9"), note="the authors' repository, without the meta part"),
    "eql": Result(Numbers("18.6 (2.1/17.4/27.2)"), Numbers("24.0 (9.4/25.2/28.4)"), "v1.0: 12 epochs"),
    "eql_v2": Result(_TABLE_6["eql_v2"].v1, _TABLE_6["eql_v2"].v05, "v1.0, 12 epochs: 23.7 (14.9/22.8/28.6)"),
    "seesaw": Result(Numbers("26.4", "27.6"), note="repeat factors; random sampling 25.0, box 25.6"),
    "ecm": Result(Numbers("27.5", "27.9"), note="24 epochs; 12 epochs 26.4, box 26.9"),
    "acsl": Result(v05=Numbers(box="26.4"), note="Faster R-CNN, two stages, from box 21.2"),
    "gol": Result(Numbers("27.7 (21.4/27.7/30.4)", "27.5"), Numbers("29.5", "28.2"), "repeat factors"),
    "efl": Result(Numbers(box="27.5 (20.2/26.1/32.4)"), note="a one-stage detector"),
    "fasa": Result(_TABLE_6["fasa"].v1, note="repeat factors; random sampling 22.2 (10.5/20.4/29.4)"),
    "forest": Result(v05=_TABLE_6["forest"].v05),
    "bacl": Result(
        Numbers(box="26.1"), Numbers(box="27.8"), "Faster R-CNN, two stages; v1.0 from box 19.3, v0.5 from 22.0"
    ),
    "pcb": Result(
        Numbers("26.5 (18.5/26.5/30.2)", "28.3"),
        Numbers("27.7 (21.8/28.0/29.7)", "28.2"),
        "repeat factors; random sampling 22.6, box 24.1",
    ),
    "crt": Result(Numbers("22.1 (11.9/20.2/29.0)"), note="first stage of 12 epochs, from 16.1"),
    "lws": Result(Numbers("17.0 (2.0/13.5/27.4)"), _TABLE_6["lws"].v05, "v1.0: first stage of 12 epochs, from 16.1"),
    "tau_norm": Result(v05=Numbers(box="21.6"), note="Faster R-CNN, τ by selection; τ = 1 gives box 11.0"),
    "bags": Result(Numbers("23.1"), _TABLE_6["bags"].v05, "v1.0: 12 epochs; COCO detector first"),
    "disalign": Result(
        Numbers("24.2", "24.8"), Numbers("27.1 (16.3/28.8/29.4)", "26.3"), "cosine; linear v0.5 24.3, box 23.7"
    ),
    "balms": Result(
        v05=Numbers("27.0 (17.3/28.1/29.5)", "26.4"), note="the authors' repository; Table 6 has other groups"
    ),
    "acsl_second_stage": Result(v05=Numbers(box="26.4"), note="Faster R-CNN, from box 21.2; COCO detector first"),
    "loce": Result(_TABLE_6["loce"].v1, _TABLE_6["loce"].v05),
    "fracal": Result(
        Numbers("28.5 (23.0/28.1/31.5)", "28.4"), note="cosine, normalised mask predictor, repeat factors"
    ),
}
