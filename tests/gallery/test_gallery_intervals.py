"""Intervals against scipy's and against numbers from the literature."""

import numpy as np
import pytest
from scipy import stats

from fmcheck.gallery.intervals import Estimate, estimated, paired, wilson


@pytest.mark.parametrize(("right", "count"), [(0, 24), (1, 24), (13, 24), (24, 24), (1, 1)])
def test_wilsons_interval_is_that_of_scipy(right: int, count: int) -> None:
    found = wilson([1.0] * right + [0.0] * (count - right))
    expected = stats.binomtest(right, count).proportion_ci(0.95, method="wilson")
    assert found.mean == right / count
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_means_of_more_than_0_and_1_have_students_interval() -> None:
    values = [0.5, 2 / 3, 5 / 6, 1.0, 0.5, 1 / 3]
    found = estimated(values)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert estimated([0.0, 1.0, 1.0]) == wilson([0.0, 1.0, 1.0])


def test_equal_scores_are_no_certainty() -> None:
    assert estimated([0.5] * 24).low < 0.35
    assert estimated([0.98, 1.0, 1.0]).high == 1


def test_differences_are_paired_by_prompt() -> None:
    values, clean = [0.5, 0.5, 1.0, 0.0], [1.0, 0.5, 1.0, 0.5]
    found = paired(values, clean)
    expected = stats.ttest_rel(values, clean).confidence_interval(0.95)
    assert found.mean == -0.25
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert paired(clean, clean) == Estimate(0.0, 0.0, 0.0)
    assert paired([1.0], [0.5]) == Estimate(0.5, -1.0, 1.0), "one prompt says nothing about others"


def test_equal_differences_are_told_by_their_number() -> None:
    """All of one sign by luck: 2 / 2^N, which is below 0.05 from six on."""
    assert paired([0.5] * 5, [0.7] * 5).high == 1
    assert paired([0.5] * 6, [0.7] * 6).high == pytest.approx(-0.2)


def test_students_interval_holds_the_mean_as_often_as_it_says() -> None:
    rng, held, trials = np.random.default_rng(0), 0, 1000
    for _ in range(trials):
        new, clean = rng.binomial(6, 0.7, 24) / 6, rng.binomial(6, 0.9, 24) / 6
        found = paired(new.tolist(), clean.tolist())
        held += found.low <= -0.2 <= found.high
    assert held / trials == pytest.approx(0.95, abs=0.025)
