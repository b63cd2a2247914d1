"""Weight-norm tables."""

import json

import numpy as np
import pytest

from c2am_jax.data.lvis import category_table
from c2am_jax.evaluation.classifier_norms import classifier_norms, group_quantiles, weight_norm_table
from c2am_jax.evaluation.tables import norm_table


@pytest.fixture
def categories():
    counts = [500, 3, 50, 8]
    return category_table([{"id": i, "name": f"n{i}", "image_count": n} for i, n in enumerate(counts, 1)])


def test_rows_are_sorted_by_frequency_and_background_is_apart(categories):
    norms = classifier_norms({"roi_head.bbox_head.fc_cls.kernel": np.diag([4.0, 1.0, 2.0, 3.0, 9.0])})
    table = weight_norm_table(norms[""], categories)
    assert [row["id"] for row in table["categories"]] == [1, 3, 4, 2]
    assert [row["norm"] for row in table["categories"]] == [4, 2, 3, 1]
    assert table["background"] == 9
    assert table["groups"]["rare"][50] == 2 and table["groups"]["frequent"][50] == 4
    assert "background 9.000" in norm_table(table)


def test_a_classifier_without_background_has_no_norm_of_it(categories):
    table = weight_norm_table(np.array([4.0, 1.0, 2.0, 3.0]), categories)
    assert table["background"] is None
    json.dumps(table, allow_nan=False)
    assert "background" not in norm_table(table)


def test_empty_groups_are_left_out():
    assert set(group_quantiles(np.ones(2), ("f", "f"))) == {"frequent"}


def test_a_cascade_has_norms_for_each_stage():
    params = {f"roi_head.bbox_head.{i}.fc_cls.kernel": np.full((4, 3), float(i)) for i in range(3)}
    params |= {"roi_head.bbox_head.0.fc_cls.bias": np.ones(3), "roi_head.mask_head.0.convs.0.conv.kernel": np.ones(3)}
    norms = classifier_norms(params)
    assert list(norms) == ["s0", "s1", "s2"]
    np.testing.assert_array_equal(norms["s2"], [4.0, 4.0, 4.0])
