"""Drawings: where colours go, and that names stay readable."""

import numpy as np
import pytest

from c2am_jax.visualization.draw import _overlap, _plate, class_colour, draw, fitting, font

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


def test_names_keep_out_of_each_others_way_and_inside_the_picture():
    """Plates of boxes on one place, as `_plate` puts them: above, inside, below."""
    size, corner, plates = (300, 200), (250, 60, 299, 120), []
    for _ in range(4):
        plates.append(_plate(150, corner, size, plates))
    assert len(set(plates)) == 4
    for index, plate in enumerate(plates):
        assert plate[0] >= 0 and plate[1] >= 0 and plate[2] <= 300 and plate[3] <= 200
        assert not any(_overlap(plate, other) for other in plates[:index])


def test_long_names_are_shortened_and_keep_their_score():
    assert fitting("cat", "0.90", 200) == "cat 0.90"
    short = fitting("a rather long name of a thing", "0.90", 100)
    assert short.startswith("a rat") and short.endswith("… 0.90") and font().getlength(short) <= 100


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
