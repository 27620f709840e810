"""Rendered shapes against their areas in closed form, at every size and in windows."""

import math

import pytest
import torch

from fmcheck.tiny.render import render
from fmcheck.tiny.scenes import SHAPES, Placed, example

WHITE, BLACK = (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)


def shape(name, centre=(0.5, 0.5), radius=0.18, angle=0.0):
    return Placed(name, centre, radius, angle, WHITE, BLACK)


def covered(placed, height, width):
    """Pixels that are white, fractions included."""
    return float(((render([placed], height, width)[0, 0] + 1) / 2).double().sum())


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("size", [(256, 256), (192, 320), (512, 512)])
@pytest.mark.parametrize("angle", [0.0, 0.1])
def test_every_shape_covers_the_area_of_its_circle(name, size, angle):
    # Antialiasing is exact along straight edges and wrong by less than a pixel at each of up to twelve corners.
    expected = math.pi * (0.18 * min(size)) ** 2
    assert covered(shape(name, angle=angle), *size) == pytest.approx(expected, abs=12)


@pytest.mark.parametrize("name", SHAPES)
def test_the_centre_is_the_centroid(name):
    picture = (render([shape(name, centre=(0.4, 0.6), angle=0.07)], 256, 256)[0, 0] + 1) / 2
    rows = (picture.sum(dim=1) * (torch.arange(256) + 0.5)).sum() / picture.sum()
    columns = (picture.sum(dim=0) * (torch.arange(256) + 0.5)).sum() / picture.sum()
    assert float(rows) == pytest.approx(0.4 * 256, abs=0.2)
    assert float(columns) == pytest.approx(0.6 * 256, abs=0.2)


def test_a_triangle_points_up():
    picture = render([shape("triangle")], 256, 256)[0, 0] > 0
    widths = picture.sum(dim=1)[picture.any(dim=1)]
    assert widths[0] < 4 < widths[-1]


def test_a_square_is_straight_and_has_its_side():
    picture = (render([shape("square")], 256, 256)[0, 0] + 1) / 2
    assert float(picture[128].sum()) == pytest.approx(math.sqrt(math.pi) * 0.18 * 256, abs=1e-3)


def test_a_window_is_a_part_of_the_picture():
    placed = example("train", 5)[1]
    whole = render([placed], 256, 256)
    assert torch.equal(render([placed], 256, 256, [(40, 96, 128, 64)]), whole[..., 40:168, 96:160])


def test_colours_are_those_of_the_scene():
    placed = example("train", 5)[1]
    picture = render([placed], 64, 64)[0]
    assert picture[:, 0, 0].tolist() == pytest.approx([2 * c - 1 for c in placed.background], abs=1e-6)
    assert picture.abs().max() <= 1


def test_rows_do_not_see_each_other():
    several = [example("train", index)[1] for index in range(4)]
    together = render(several, 64, 96)
    assert all(torch.equal(render([one], 64, 96)[0], row) for one, row in zip(several, together, strict=True))


@pytest.mark.parametrize(("height", "width"), [(0, 64), (64, -1), (64.0, 64), (True, 64)])
def test_sizes_are_checked(height, width):
    with pytest.raises(ValueError, match="expected a positive int"):
        render([shape("circle")], height, width)


def test_nothing_to_render():
    with pytest.raises(ValueError, match="placed: expected at least one shape"):
        render([], 64, 64)


def test_an_unknown_shape():
    with pytest.raises(ValueError, match="shape: expected circle, square, triangle or cross, found 'star'"):
        render([shape("star")], 64, 64)
