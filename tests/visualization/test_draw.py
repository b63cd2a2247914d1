"""Drawings: where colours go, and that names stay readable."""

import numpy as np
import pytest

from c2am_jax.visualization.draw import class_colour, draw
from c2am_jax.visualization.names import fitting, font, readable
from c2am_jax.visualization.plates import plate

GREY = np.full((60, 90, 3), 100, np.uint8)


def test_a_box_is_outlined_in_its_classs_colour_and_the_picture_is_not_changed():
    drawn = draw(GREY, np.array([[20, 30, 50, 55]]), [7])
    assert drawn.shape == GREY.shape and drawn.dtype == np.uint8 and (GREY == 100).all()
    assert tuple(drawn[55, 35]) == tuple(drawn[45, 50]) == class_colour(7)
    assert (drawn[40, 35] == 100).all() and (drawn[58, 80] == 100).all()


def test_masks_tint_their_pixels_only_and_the_best_lies_on_top():
    masks = np.zeros((2, 60, 90), bool)
    masks[0, 40:50, 30:40], masks[1, 40:50, 30:60] = True, True
    drawn = draw(GREY, np.array([[0, 0, 5, 5], [0, 0, 5, 5]]), [1, 2], [0.9, 0.8], masks)
    only_second = np.rint(0.55 * 100 + 0.45 * np.asarray(class_colour(2)))
    assert (drawn[45, 50] == only_second).all()
    assert (drawn[45, 35] == np.rint(0.55 * only_second + 0.45 * np.asarray(class_colour(1)))).all()
    assert (drawn[55, 35] == 100).all()


def test_classes_of_lvis_have_colours_that_neighbours_do_not_share():
    colours = np.array([class_colour(k) for k in range(1203)], float)
    near = np.abs(colours[:, None] - colours[None]).max(-1)
    for distance in range(1, 8):
        assert np.diagonal(near, distance).min() > 20
    assert class_colour(3) == class_colour(3)


def overlap(one, other):
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def test_names_keep_out_of_each_others_way_and_inside_the_picture():
    size, boxes, plates = (300, 200), np.array([[250.0, 60, 299, 120]] * 4), []
    for own in range(4):
        plates.append(plate(150, 17, own, boxes, size, np.array(plates).reshape(-1, 4)))
    for index, place in enumerate(plates):
        assert place[0] >= 0 and place[1] >= 0 and place[2] <= 300 and place[3] <= 200
        assert not any(overlap(place, other) for other in [boxes[0], *plates[:index]])


@pytest.mark.parametrize("corner", [(0, 0), (0, 180), (380, 0), (380, 180), (200, 90)])
def test_a_name_hides_neither_its_own_small_object_nor_the_one_beside_it(corner):
    x, y = corner
    boxes = np.array([[x, y, x + 12, y + 12], [x + 16, y, x + 28, y + 12]], float)
    place = plate(80, 17, 0, boxes, (400, 200), np.zeros((0, 4)))
    assert not any(overlap(place, box) for box in boxes)


def test_a_name_lies_on_a_large_object_before_it_lies_on_a_small_one():
    boxes = np.array([[0, 20, 400, 180], [0, 0, 60, 18], [0, 182, 60, 200]], float)
    place = plate(80, 17, 0, boxes, (400, 200), np.zeros((0, 4)))
    assert not any(overlap(place, box) for box in boxes[1:])


def test_a_small_object_is_seen_in_the_drawing():
    """The pixels of a mask of 10 x 10 all have the mask's colour but for the box's outline."""
    mask = np.zeros((100, 200), bool)
    mask[45:55, 95:105] = True
    picture = np.full((100, 200, 3), 100, np.uint8)
    drawn = draw(picture, np.array([[94, 44, 105, 55]]), [3], [0.9], [mask], names=["", "", "", "a_small_thing"])
    assert (drawn[46:54, 96:104] == np.rint(0.55 * 100 + 0.45 * np.asarray(class_colour(3)))).all()


def test_names_are_written_with_spaces_for_the_underscores_between_words():
    assert readable("baby_buggy_(vehicle)") == "baby buggy (vehicle)"
    assert [readable(name) for name in ("_", "snake_", "_private", "flip-flop", "a__b")] == [
        "_",
        "snake_",
        "_private",
        "flip-flop",
        "a b",
    ]
    mask, box = np.zeros((1, 60, 90), bool), np.array([[5, 30, 85, 55]])
    assert (draw(GREY, box, [0], None, mask, names=["a_b"]) == draw(GREY, box, [0], None, mask, names=["a b"])).all()


def test_long_names_lose_their_brackets_then_words_then_letters_and_keep_their_score():
    def shortened(name, width):
        short = fitting(name, "0.90", width)
        assert font().getlength(short) <= width
        return short

    assert shortened("cat", 200) == "cat 0.90"
    assert shortened("baby buggy (vehicle)", 250) == "baby buggy (vehicle) 0.90"
    assert shortened("baby buggy (vehicle)", 150) == "baby buggy… 0.90"
    assert shortened("baby buggy (vehicle)", 110) == "baby… 0.90"
    assert shortened("a rather long name of a thing", 140) == "a rather long… 0.90"
    assert shortened("supercalifragilistic", 100).startswith("super")
    assert fitting("anything", "0.90", 5) == "0.90"


def test_small_pictures_are_enlarged_and_boxes_beyond_the_border_are_clipped():
    drawn = draw(GREY, np.array([[-20, -20, 200, 200]]), [0], [0.5], np.ones((1, 60, 90), bool), enlarge=3)
    assert drawn.shape == (180, 270, 3) and tuple(drawn[-1, 100]) == class_colour(0)


def test_nothing_found_gives_the_picture_back():
    assert (draw(GREY, np.zeros((0, 4)), [], [], []) == GREY).all()


def test_arrays_that_do_not_go_together_are_refused():
    with pytest.raises(ValueError, match="different lengths"):
        draw(GREY, np.zeros((2, 4)), [1])
    with pytest.raises(ValueError, match="different lengths"):
        draw(GREY, np.zeros((1, 4)), [1], [0.5], [])
    with pytest.raises(ValueError, match="a mask of"):
        draw(GREY, np.zeros((1, 4)), [1], masks=[np.ones((5, 5), bool)])
