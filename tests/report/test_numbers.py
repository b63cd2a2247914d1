"""Calibration, margins and tables against what they are made of."""

import numpy as np
import pytest

from c2am_jax.evaluation.ap_matching import CategoryResult
from c2am_jax.evaluation.lvis_ap import evaluate_file
from c2am_jax.report.charts import by_frequency
from c2am_jax.report.collect import numbers
from c2am_jax.report.inspection import inspect
from c2am_jax.report.margins import margin_summary
from c2am_jax.report.reliability import reliability


def result(scores, hits):
    return CategoryResult(
        np.zeros(0),
        np.zeros(0),
        np.array(scores, float),
        np.array(hits, bool),
        1,
        (np.zeros(0), np.zeros((10, 0))),
        np.zeros(0, int),
    )


def test_reliability_by_hand():
    found = reliability([result([0.1, 0.05, 0.95], [0, 1, 1]), result([0.91], [0])])
    first, last = found["bins"][0], found["bins"][-1]
    assert (first["count"], first["score"], first["precision"]) == (2, pytest.approx(0.075), 0.5)
    assert (last["count"], last["score"], last["precision"]) == (2, pytest.approx(0.93), 0.5)
    assert found["error"] == pytest.approx((2 * 0.425 + 2 * 0.43) / 4)
    assert all(b["score"] is None for b in found["bins"][1:-1]) and found["count"] == 4


def test_scores_beyond_probabilities_count_in_the_outer_ranges():
    found = reliability([result([-2.0, 0.0, 1.0, 7.5], [0, 0, 1, 1])])
    assert [b["count"] for b in found["bins"]] == [2, *[0] * 8, 2]
    assert reliability([])["error"] is None


def test_margins_between_groups_by_the_formula():
    kernel = np.diag([1.0, 2.0, 4.0, 8.0])  # rare, rare, frequent, background
    found = margin_summary(kernel, ["r", "r", "f"], alpha=0.5, background="all", max_margin=np.pi / 2)
    step = 0.5 / np.pi * np.log(2)
    assert found["groups"] == ["rare", "frequent", "background"]
    assert found["mean"][0] == pytest.approx([step / 2, 0, 0], abs=1e-6)
    assert found["mean"][1] == [pytest.approx(1.5 * step, abs=1e-6), None, 0]
    assert found["mean"][2][:2] == pytest.approx([2.5 * step, step], abs=1e-6)
    assert found["active"][0][0] == 0.5 and found["max"] == pytest.approx(3 * step, abs=1e-6)
    silent = margin_summary(kernel, ["r", "r", "f"], alpha=0.5, background="foreground_only", max_margin=np.pi / 2)
    assert silent["mean"][2][:2] == [0, 0]


def test_numbers_are_the_evaluators(evaluation):
    scored = {
        kind: evaluate_file(evaluation["annotations"], evaluation[name], kind, evidence=True)
        for kind, name in (("bbox", "boxes"), ("segm", "masks"))
    }
    found = numbers(scored, inspect(scored["bbox"].evidence, 0.3))
    for kind, of in scored.items():
        for name, value in of.metrics().items():
            assert found["metrics"][kind][name] == (None if value == -1 else pytest.approx(value, abs=1e-6)), name
        for row, expected in zip(found["categories"], of.category_table(), strict=True):
            assert (row["name"], row["ground_truths"]) == (expected["name"], expected["ground_truths"])
            absent = expected["ground_truths"] == 0
            assert row[f"{kind}_AP"] == (None if absent else pytest.approx(expected["AP"], abs=1e-6))
        for letter, group in zip(("", *"rcf"), found["groups"], strict=True):
            assert group[kind]["AP"] == pytest.approx(of.metrics()[f"AP{letter}"], abs=1e-6)
        assert found["calibration"][kind]["all"]["count"] == sum(len(r.scores) for r in of.results)
        usual = found["caps"][kind]
        assert [row["cap"] for row in usual] == [1, 2, 3, 6]
        (all_of_them,) = numbers({kind: of}, inspect(scored["bbox"].evidence, 0.3), caps=[300])["caps"][kind]
        assert all_of_them["APr"] == pytest.approx(of.metrics()["APr"], abs=1e-6) and usual[0]["AP"] < all_of_them["AP"]
    confusion = found["confusion"]
    assert confusion["right"] + confusion["other"] + confusion["none"] == confusion["objects"]
    assert [g["annotated"] for g in found["groups"]] == [5, 2, 2, 1] and [g["categories"] for g in found["groups"]][
        0
    ] == 6


def test_a_chart_has_a_point_for_each_value():
    svg = by_frequency([10.0, None, 50.0], ["f", "f", "r"], title="t", y_name="AP", top=100)
    assert svg.count("h0") == 2 and 'points common" d=""' in svg
