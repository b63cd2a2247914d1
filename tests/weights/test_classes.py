"""Rows of classes go by name: as they are, in another order, only what both have; or one line says why not."""

import numpy as np
import pytest

from c2am_jax.errors import UserError
from c2am_jax.weights.classes import by_name

RNG = np.random.default_rng(0)
THEIRS = ("cat", "dog", "bird")
CLS, CLS_BIAS = "roi_head.bbox_head.0.fc_cls.weight", "roi_head.bbox_head.0.fc_cls.bias"
REG, MASK = "roi_head.bbox_head.0.fc_reg.weight", "roi_head.mask_head.conv_logits.weight"
SHARED, EXTRA = "roi_head.bbox_head.0.shared_fcs.1.weight", "roi_head.bbox_head.0.cls_extra.factor"


def arrays(classes, *, behind=1, agnostic=False, extra=False):
    """A detector's class-dependent arrays in PyTorch's layout, and one that is not."""
    one = 1 if agnostic else classes
    shapes = {CLS: (classes + behind, 5), CLS_BIAS: (classes + behind,), REG: (4 * one, 5), MASK: (one, 6, 1, 1)}
    shapes |= {SHARED: (5, 5)} | ({EXTRA: (classes,)} if extra else {})
    return {name: RNG.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def matched(given, own, ours, **options):
    return by_name(given, own, THEIRS, ours, source="w.pth", **options)


def test_the_same_names_and_files_without_names_are_taken_as_they_are():
    given = arrays(3, extra=True)
    for theirs, ours in ((THEIRS, THEIRS), ((), ("x", "y", "z")), (THEIRS, ())):
        found = by_name(given, arrays(3, extra=True), theirs, ours, source="w.pth")
        assert found.arrays == given and not found.random and not found.note


@pytest.mark.parametrize("ours", [("bird", "cat", "dog"), ("dog", "cat")], ids=["another order", "a part of them"])
@pytest.mark.parametrize("behind", [0, 1, 2], ids=["no background", "background", "seesaw"])
def test_known_classes_get_their_rows_in_this_runs_order(ours, behind):
    given = arrays(3, behind=behind)
    found = matched(given, arrays(len(ours), behind=behind), ours)
    order = [THEIRS.index(name) for name in ours]
    tail = list(range(3, 3 + behind))
    for name in (CLS, CLS_BIAS):
        np.testing.assert_array_equal(found.arrays[name], given[name][order + tail])
    np.testing.assert_array_equal(found.arrays[MASK], given[MASK][order])
    rows = [4 * k + i for k in order for i in range(4)]
    np.testing.assert_array_equal(found.arrays[REG], given[REG][rows])
    assert found.arrays[SHARED] is given[SHARED] and not found.random
    assert f"{len(ours)} of {len(ours)} classes are among its 3" in found.note


def test_unknown_classes_are_an_error_that_names_them():
    with pytest.raises(UserError, match=r"w\.pth: 2 of this run's 3 classes .* its 3: cow, horse \(it has cat, dog,"):
        matched(arrays(3), arrays(3), ("cow", "dog", "horse"))
    many = tuple(f"thing {k}" for k in range(40))
    with pytest.raises(UserError, match=r"thing 4 and 35 more .*reset_classifier=True keeps the rows of the 0"):
        matched(arrays(3), arrays(40), many)


def test_what_both_have_is_kept_and_the_rest_starts_random_when_asked():
    given, own = arrays(3), arrays(4)
    found = matched(given, own, ("cow", "dog", "horse", "cat"), reset_classifier=True)
    for name, each, tail in ((CLS, 1, True), (CLS_BIAS, 1, True), (REG, 4, False), (MASK, 1, False)):
        expected = own[name].copy()
        for ours, theirs in ((1, 1), (3, 0)):
            expected[each * ours : each * ours + each] = given[name][each * theirs : each * theirs + each]
        if tail:
            expected[-1] = given[name][-1]  # background
        np.testing.assert_array_equal(found.arrays[name], expected, err_msg=name)
    assert found.random == {CLS, CLS_BIAS, REG, MASK}
    assert "2 of 4 classes are among its 3, their rows are taken by name; 2 start random: cow, horse" in found.note


def test_class_agnostic_parts_are_taken_as_they_are():
    given = arrays(3, agnostic=True)
    found = matched(given, arrays(2, agnostic=True), ("dog", "cat"))
    assert found.arrays[REG] is given[REG] and found.arrays[MASK] is given[MASK]


@pytest.mark.parametrize("change", [{"behind": 6}, {"extra": True}], ids=["channels of bags", "arrays of a method"])
def test_rows_that_are_no_classes_need_the_same_order_or_start_again(change):
    given, own, ours = arrays(3, **change), arrays(3, **change), ("dog", "cat", "bird")
    with pytest.raises(UserError, match=r"w\.pth: the rows of .* are not classes, .*--config\.train\.reset_classifier"):
        matched(given, own, ours)
    found = matched(given, own, ours, reset_classifier=True)
    lost = {EXTRA} if "extra" in change else {CLS, CLS_BIAS}
    assert lost == set(given) - set(found.arrays) == found.random and REG in found.arrays


def test_facts_of_this_runs_data_are_never_taken_from_others():
    group = "roi_head.bbox_head.cls_extra.group"
    given, own = (arrays(3) | {group: np.arange(3, dtype=np.int32)} for _ in range(2))
    assert group not in matched(given, own, ("dog", "cat", "bird")).arrays


def test_a_name_that_two_classes_have_says_nothing():
    with pytest.raises(UserError, match=r"2 of this run's 3 classes .*: cat, cat \("):
        matched(arrays(3), arrays(3), ("cat", "cat", "dog"))
