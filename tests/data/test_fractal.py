"""Objects of an annotation file; fractal dimension of points whose dimension is known."""

import json

import numpy as np
import pytest

from c2am_jax.data.fractal import cells_hit, fractal_dimensions, of_annotations
from c2am_jax.data.lvis import AnnotationError
from c2am_jax.data.objects import read_objects

RNG = np.random.default_rng(0)


def cantor(count):
    """Points of the middle-third Cantor set, of dimension ln 2 / ln 3."""
    digits = 2 * RNG.integers(0, 2, (count, 20))
    return (digits / 3.0 ** np.arange(1, 21)).sum(1)


def test_known_dimensions():
    n, along = 20000, RNG.random(20000)
    sets = {
        "square": RNG.random((n, 2)),
        "line": np.stack([RNG.random(n), np.full(n, 0.3)], 1),
        "diagonal": np.stack([along, along], 1),
    }
    label = np.repeat(np.arange(len(sets)), n)
    found = fractal_dimensions(np.concatenate(list(sets.values())), label, len(sets))
    np.testing.assert_allclose(found, [2, 1, 1], atol=0.06)


def test_a_fractal_fills_the_cells_that_its_dimension_says():
    # Cantor dust, of dimension ln 4 / ln 3: four of nine cells, and again inside each of them.
    dust = np.stack([cantor(20000), cantor(20000)], 1)
    assert [cells_hit(dust, np.zeros(20000, int), 1, grid)[0] for grid in (3, 9, 27)] == [4, 16, 64]
    # Grids that are no power of 3 cut its cells apart, so the slope over all grids lies above.
    assert np.log(4) / np.log(3) < fractal_dimensions(dust, np.zeros(20000, int), 1)[0] < 1.6


def test_a_point_and_few_points_count_as_a_line():
    centres = np.concatenate([np.full((50, 2), 0.5), RNG.random((3, 2))])
    found = fractal_dimensions(centres, np.repeat([0, 2], [50, 3]), 3)
    np.testing.assert_array_equal(found, [1.0, 1.0, 1.0])  # the second class has no object at all


def test_grids_finer_than_the_objects_can_fill_do_not_count():
    # 16 evenly spaced points fill the grids of 1, 4, 9, 16 cells; all finer ones would flatten the line.
    side = (np.arange(4) + 0.5) / 4
    centres = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)
    assert fractal_dimensions(centres, np.zeros(16, int), 1)[0] == pytest.approx(2.0)


def test_cells_are_counted_per_class_and_borders_belong_to_the_last_cell():
    centres = np.array([[0.0, 0.0], [0.1, 0.2], [1.0, 1.0], [0.6, 0.1]])
    np.testing.assert_array_equal(cells_hit(centres, np.array([0, 0, 0, 1]), 2, 2), [2, 1])


def annotations(tmp_path, **changes):
    content = {
        "annotations": [
            {"image_id": 1, "category_id": 7, "bbox": [10, 20, 20, 20]},
            {"image_id": 2, "category_id": 3, "bbox": [0, 0, 50, 100], "area": 7.5},
            {"image_id": 2, "category_id": 3, "bbox": [0, 0, 50, 100], "iscrowd": 1},
        ],
        "images": [{"id": 1, "width": 100, "height": 200}, {"id": 2, "width": 100, "height": 100}],
        "categories": [
            {"id": 3, "name": "cat", "synset": "cat.n.01", "def": "a small feline", "synonyms": ["kitty"]},
            {"id": 9, "name": "dog"},
        ],
    } | changes
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps(content))
    return path


def test_objects_without_crowds_and_what_classes_are_called(tmp_path):
    path = annotations(tmp_path)
    found = read_objects(path, np.array([3, 7]))
    np.testing.assert_array_equal(found.boxes, [[10, 20, 20, 20], [0, 0, 50, 100]])
    np.testing.assert_array_equal(found.area, [400, 7.5])
    np.testing.assert_array_equal(found.image_wh, [[100, 200], [100, 100]])
    np.testing.assert_array_equal(found.label, [1, 0])
    assert found.texts == ("cat cat.n.01 a small feline kitty", "")
    np.testing.assert_array_equal(of_annotations(path, np.array([3, 7])), [1.0, 1.0])


def test_centres_are_in_units_of_their_image(tmp_path):
    # Two objects in pixels of unlike images, one point in units of the image: no grid tells them apart.
    boxes = [{"image_id": i, "category_id": 3, "bbox": [45 * i, 90 // i, 10 * i, 20 // i]} for i in (1, 2)] * 8
    images = [{"id": 1, "width": 100, "height": 200}, {"id": 2, "width": 200, "height": 100}]
    path = annotations(tmp_path, annotations=boxes, images=images)
    np.testing.assert_array_equal(of_annotations(path, np.array([3])), [1.0])


@pytest.mark.parametrize("changes", [{"images": []}, {"images": [{"id": 1}, {"id": 2}]}])
def test_a_file_without_image_sizes_is_named(tmp_path, changes):
    with pytest.raises(AnnotationError, match="annotations.json: an entry"):
        read_objects(annotations(tmp_path, **changes), np.array([3, 7]))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(AnnotationError, match="no such file"):
        read_objects(tmp_path / "absent.json", np.array([3]))
