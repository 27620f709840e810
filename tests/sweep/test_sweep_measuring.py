"""Measures of pictures, against pictures whose numbers can be counted by hand."""

import math

import pytest
import torch

from fmcheck.sweep.measuring import clipped, colour, distance


def test_clipped_counts_values_within_a_hundredth_of_the_ends_and_beyond() -> None:
    # Of the range [-1, 1] a hundredth is 0.02: -1.5, -1, -0.98, 0.985 and 3 count; -0.97 and 0.97 do not.
    values = torch.tensor([-1.5, -1.0, -0.98, 0.985, 3.0, -0.97, 0.97, 0.0, 0.5, 0.1])
    image = torch.stack([values, torch.zeros(10)]).reshape(2, 1, 2, 5)
    assert clipped(image, -1.0, 1.0).tolist() == [0.5, 0.0]


def test_colour_is_the_mean_of_the_largest_less_the_smallest_channel() -> None:
    red, grey = torch.tensor([1.0, -1.0, -1.0]), torch.tensor([0.3, 0.3, 0.3])
    half = torch.tensor([0.5, 0.0, 0.0])
    image = torch.stack([red, grey, half, half], dim=-1).reshape(1, 3, 2, 2)
    # In units of the range: 1, 0, 0.25, 0.25.
    assert colour(image, -1.0, 1.0) == pytest.approx([1.5 / 4])


def test_colour_is_clamped_to_the_range_and_needs_three_channels() -> None:
    assert colour(torch.tensor([9.0, -9.0, 0.0]).reshape(1, 3, 1, 1), -1.0, 1.0).tolist() == [1.0]  # type: ignore[union-attr]
    assert colour(torch.zeros(2, 1, 4, 4), -1.0, 1.0) is None


def test_distance_is_the_rms_of_the_difference_in_units_of_the_range() -> None:
    unguided = torch.zeros(2, 3, 4, 4)
    images = torch.stack([torch.full((3, 4, 4), 0.5), torch.zeros(3, 4, 4)])
    images[1, 0, 0, 0] = 2.0
    # 0.5 of [-1, 1]; then sqrt(4 / 48) of it.
    assert distance(images, unguided, -1.0, 1.0).tolist() == pytest.approx([0.25, math.sqrt(4 / 48) / 2])
    assert distance(images, unguided, 0.0, 1.0).tolist() == pytest.approx([0.5, math.sqrt(4 / 48)])
