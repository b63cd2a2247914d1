"""The boundaries of Figure 2 lie where the formulas put them."""

import math

import numpy as np
import pytest

from c2am_jax.experiments.boundaries import TWO_CLASSES, boundary_angle, main, methods, regions, weights


@pytest.mark.parametrize("name", methods(0.5))
@pytest.mark.parametrize("norms", [(1.0, 1.0), (1.2, 0.8), (0.8, 1.2)])
@pytest.mark.parametrize("angle", [50.0, 110.0])
def test_found_boundary_is_the_analytic_one(name, norms, angle):
    method = methods(0.5)[name]
    found = boundary_angle(method, weights((20, 20 + angle), norms), 0, 1)
    assert found == pytest.approx(method.analytic(math.radians(angle), *norms), abs=1e-3)


@pytest.mark.parametrize("ratio", [2.0, 10.0, 40.0])
def test_c2am_moves_the_boundary_of_the_larger_norm_by_half_the_margin(ratio):
    method, kernel, t = methods(0.5)["c2am"], weights((0, 70), (ratio, 1.0)), math.radians(70)
    margin = 0.5 / math.pi * math.log(ratio)
    assert boundary_angle(method, kernel, 0, 1) == pytest.approx((t + margin) / 2, abs=1e-3)
    assert boundary_angle(method, kernel, 1, 0) == pytest.approx(t / 2, abs=1e-3)


def test_a_margin_above_t_gives_the_larger_class_the_whole_arc():
    assert math.isnan(boundary_angle(methods(0.5)["c2am"], weights((0, 10), (100.0, 1.0)), 0, 1))


def test_an_inner_product_leaves_the_smaller_class_not_even_its_own_direction():
    kernel, t = weights((0, 40), (1.0, 0.25)), math.radians(40)
    found = boundary_angle(methods(0.5)["ce"], kernel, 1, 0)
    assert found == pytest.approx(math.atan2(0.25 - math.cos(t), math.sin(t)), abs=1e-3) and found < 0
    assert math.isnan(boundary_angle(methods(0.5)["ce"], kernel, 0, 1))


def test_regions_overlap_in_c2am_part_in_arcface_and_touch_in_cosine():
    angles = np.radians(np.linspace(50, 130, 141))
    arc = np.stack([np.cos(angles), np.sin(angles)], -1)
    owners = {name: regions(method, arc, TWO_CLASSES).sum(1) for name, method in methods(0.5).items()}
    assert owners["c2am"].max() == 2 and owners["c2am"].min() == 1
    assert owners["arcface"].min() == 0 and owners["arcface"].max() == 1
    assert owners["normface"].max() == 1 and (owners["normface"] == 0).sum() <= 1


def test_command_draws_both_pictures_and_prints_angles(tmp_path, capsys):
    assert main(["--out", str(tmp_path / "new")]) == 0
    assert (tmp_path / "new" / "figure2.png").stat().st_size > 10_000
    assert (tmp_path / "new" / "table1.png").stat().st_size > 10_000
    assert "C2AM" in capsys.readouterr().out


def test_negative_alpha_is_one_line(tmp_path, capsys):
    assert main(["--out", str(tmp_path), "--alpha", "-1"]) == 2
    assert capsys.readouterr().err == "error: --alpha -1.0: must be a number from 0\n"
