"""Results of other settings: told, and in a folder of their own."""

import dataclasses
import json

import pytest

from c2am_jax.config import load_experiment
from c2am_jax.data.settings import DataSettings
from c2am_jax.evaluation.results_folder import (
    FILE,
    TRAINING_ONLY,
    differences,
    differences_line,
    results_folder,
    scored_settings,
)


@pytest.fixture(scope="module")
def run():
    return load_experiment("glyphs_c2am")


def test_differences_are_those_that_change_scores(run):
    given = run.changed(
        {"model.test.score_threshold": 0.3, "data.val_annotations": "my val.json", "train.steps": 9, "data.workers": 1}
    )
    line = "scored with other settings than the run: "
    line += "model.test.score_threshold 0.0001 -> 0.3; data.val_annotations '' -> 'my val.json'"
    assert differences_line(differences(run, given)) == line
    assert TRAINING_ONLY <= {field.name for field in dataclasses.fields(DataSettings)}


def test_the_runs_own_test_set_is_no_other_setting(run):
    with_test = run.changed({"data.test_annotations": "t.json"})
    assert differences(with_test, with_test.changed({"eval.split": "test"})) == {"eval.split": ("val", "test")}


def test_what_was_scored_in_part_or_in_bfloat16_is_told_both_ways(run):
    for key, usual, other in (("eval.subset", "all", "minival"), ("eval.compute_dtype", "float32", "bfloat16")):
        changed = run.changed({key: other})
        assert differences(run, changed) == {key: (usual, other)}
        assert differences(changed, run) == {key: (other, usual)}
        assert scored_settings(changed) == scored_settings(run) | {key: other}
    trained = run.changed({"train.compute_dtype": "bfloat16"})
    assert differences(run, trained) == {"eval.compute_dtype": ("float32", "bfloat16")}
    assert not differences(run, trained.changed({"eval.compute_dtype": "float32"}))


def test_each_setting_has_a_folder_of_its_own(run, tmp_path):
    def name(**changes):
        given = run.changed({key.replace("__", "."): value for key, value in changes.items()})
        return results_folder(tmp_path, 5, run, given).name

    assert name() == name(train__steps=7) == "5" and name(calibration__name="norcal") == "5-norcal"
    assert name(eval__split="test", data__test_annotations="t.json") == "5-test"
    assert name(eval__subset="minival") == "5-minival" and name(data__test_annotations="t.json") == "5"
    others = [
        name(model__test__nms_iou=0.6),
        name(model__test__nms_iou=0.7),
        name(model__rpn__pre_nms_test=60),
        name(calibration__name="norcal", calibration__gamma=0.9),
        name(data__val_annotations="other.json"),
        name(eval__compute_dtype="bfloat16"),
    ]
    assert len({*others}) == 6 and all(other.startswith("5-") for other in others)
    assert name(model__test__nms_iou=0.6) == others[0] and others[3].startswith("5-norcal-")


def test_results_of_a_run_that_went_on_with_other_settings_stay(run, tmp_path):
    folder = results_folder(tmp_path, 5, run, run)
    folder.mkdir(parents=True)
    assert results_folder(tmp_path, 5, run, run) == folder  # of a version that wrote no settings
    (folder / FILE).write_text(json.dumps(scored_settings(run)))
    assert results_folder(tmp_path, 5, run, run) == folder
    later = run.changed({"model.test.max_detections": 50})
    assert results_folder(tmp_path, 5, later, later) != folder
