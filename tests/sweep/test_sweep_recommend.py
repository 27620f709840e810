"""The advice: Student's t against scipy, paired intervals by hand, and no verdict out of noise."""

import math

import numpy as np
import pytest
from scipy import stats

from fmcheck.judge import Judge
from fmcheck.sweep.recommend import advise, compared
from fmcheck.sweep.summary import Row, estimate
from fmcheck.tolerance.student import coverage, quantile
from tests.sweep.toys import likes_03


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 5, 7, 10, 31, 120])
def test_student_agrees_with_scipy(freedom: int) -> None:
    for t in (0.1, 1.0, 2.5, 8.0):
        assert coverage(t, freedom) == pytest.approx(1 - 2 * stats.t.sf(t, freedom), abs=1e-13)
    for alpha in (0.5, 0.05, 0.05 / 45):
        assert quantile(alpha, freedom) == pytest.approx(stats.t.isf(alpha / 2, freedom), rel=1e-9)


def _row(scale: float, values: list[float], *, steps: int = 8, distance: float = 0.0, **changes: object) -> Row:
    known = {"weight": scale, "off": scale == 0, "added": False, "pictures": len(values), "bad": 0}
    prompts = [distance] * len(values)
    rest = {"scores": {"match": estimate(values)}, "distance": estimate(prompts), "clipped": estimate(prompts)}
    return Row(steps=steps, scale=scale, **{**known, **rest, **changes})  # type: ignore[arg-type]


def test_an_interval_is_that_of_the_paired_differences() -> None:
    a, b = _row(3, [0.9, 0.5, 0.7, 0.4]), _row(2, [0.8, 0.3, 0.5, 0.3])
    found = compared(a, b, a.scores["match"], b.scores["match"], pairs=3)
    expected = stats.ttest_rel(a.scores["match"].prompts, b.scores["match"].prompts)
    low, high = expected.confidence_interval(1 - 0.05 / 3)
    assert found.difference == pytest.approx(0.15)
    assert found.half_width == pytest.approx((high - low) / 2)
    assert found.worse == (low > 0)


def test_prompts_that_are_hard_do_not_hide_a_difference_within_prompts() -> None:
    hard = np.linspace(0.1, 0.9, 8)
    better = list(hard + 0.05 + 0.001 * np.arange(8))
    advice = advise([_row(0, list(hard)), _row(3, better, distance=0.2)], likes_03)
    assert (advice.kind, advice.chosen) == ("recommended", (8, 3))


def test_of_settings_that_are_not_told_apart_the_mildest_is_chosen() -> None:
    wobble = np.array([0.02, -0.03, 0.01, -0.02, 0.03, -0.01, 0.02, -0.02])
    base = np.full(8, 0.7)
    rows = [
        _row(0, list(base - 0.4 + wobble / 5)),
        _row(2, list(base + wobble), distance=0.1),
        _row(3, list(base + 0.001 - wobble), distance=0.2),
        _row(6, list(base - 0.3 + wobble / 3), distance=0.4),
    ]
    advice = advise(rows, likes_03)
    assert (advice.best, advice.chosen) == ((8, 3), (8, 2))
    assert [c.worse for c in advice.comparisons] == [True, False, True]
    assert "Not told apart from the best: scale 2 at 8 steps" in advice.why
    assert "changes the unguided pictures least" in advice.why


def test_equal_distances_prefer_fewer_steps() -> None:
    good, bad = [0.7, 0.71, 0.72, 0.69], [0.2, 0.2, 0.21, 0.2]
    rows = [_row(3, [x + 1e-9 * i for i, x in enumerate(good)], steps=k, distance=0.1 - 1e-7 * k) for k in (16, 8)]
    advice = advise([*rows, _row(0, bad), _row(0, bad, steps=16)], likes_03)
    assert advice.chosen == (8, 3)


def test_equal_differences_need_enough_prompts_for_a_sign_test() -> None:
    """All differences equal: 2 / 2^P must be below 0.05 for one pair, so six prompts tell and five do not."""
    for prompts, kind in ((5, "cannot tell"), (6, "recommended")):
        assert advise([_row(0, [0.2] * prompts), _row(3, [0.9] * prompts)], likes_03).kind == kind


def test_one_prompt_or_one_setting_cannot_tell() -> None:
    advice = advise([_row(0, [0.1]), _row(3, [0.9])], likes_03)
    assert advice.kind == "cannot tell"
    assert "with one prompt" in advice.why
    assert advise([_row(3, [0.9, 0.8])], likes_03).kind == "cannot tell"


def test_pictures_that_are_not_finite_and_settings_nobody_asked_for_are_no_candidates() -> None:
    rows = [_row(0, [0.1, 0.2, 0.1, 0.2]), _row(3, [0.8, 0.8, 0.81, 0.8]), _row(6, [1.0] * 4, bad=1)]
    rows.append(_row(9, [1.0] * 4, added=True))
    assert advise(rows, likes_03).best == (8, 3)


def test_noise_is_called_better_in_at_most_a_twentieth_of_sweeps() -> None:
    """1000 sweeps of five equally good settings, their scores correlated within prompts as real ones are.

    At a rate of 5%, more than 67 of 1000 would come up with a probability of 1%.
    """
    generator = np.random.default_rng(20)
    told = 0
    for _ in range(1000):
        prompts = generator.normal(0.5, 0.1, (1, 8))
        scores = prompts + generator.normal(0, 0.1, (5, 8))
        told += advise([_row(i, list(row)) for i, row in enumerate(scores)], likes_03).kind == "recommended"
    assert told <= stats.binom.isf(0.01, 1000, 0.05)
    assert told > 0, "an interval that never lets anything through has no power either"


def test_the_number_of_prompts_that_would_tell_is_named() -> None:
    rows = [_row(0, [0.4, 0.6, 0.5, 0.3]), _row(3, [0.6, 0.5, 0.6, 0.45])]
    advice = advise(rows, likes_03)
    d = np.array([0.2, -0.1, 0.1, 0.15])
    half = stats.t.isf(0.025, 3) * d.std(ddof=1) / 2
    assert advice.kind == "cannot tell"
    assert f"about {math.ceil(4 * (half / d.mean()) ** 2)} prompts" in advice.why


def _measured(scale: float, clipped: float, norms: list[float]) -> Row:
    return _row(scale, [0.0, 0.0], scores={}, clipped=estimate([clipped] * 2), norms=norms)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([(0, 0.1, [1, 1]), (2, 0.14, [1, 1.4]), (3, 0.2, [1, 1.4])], 2),
        ([(0, 0.1, [1, 1]), (2, 0.14, [1, 1.4]), (3, 0.14, [1, 1.6])], 2),
        # 1% of clipped values are allowed, whatever the unguided pictures have.
        ([(0, 0.0, [1, 1]), (2, 0.009, [1, 1]), (3, 0.011, [1, 1])], 2),
    ],
)
def test_without_a_judge_the_largest_scale_that_stays_bounded_is_an_observation(
    rows: list[tuple[float, float, list[float]]], expected: float
) -> None:
    advice = advise([_measured(*row) for row in rows], None)
    assert advice.kind == "no judge"
    assert advice.chosen is None
    assert [(o.steps, o.scale) for o in advice.observations] == [(8, expected)]


def test_without_a_judge_no_scale_beyond_one_that_ran_away_is_called_bounded() -> None:
    rows = [(0, 0.1, [1, 1]), (2, 0.1, [1, 1]), (3, 0.5, [1, 1]), (4, 0.1, [1, 1])]
    assert [o.scale for o in advise([_measured(*row) for row in rows], None).observations] == [2]


def test_without_a_judge_steps_without_an_unguided_picture_are_not_spoken_of() -> None:
    few = [_row(scale, [0.0], scores={}, bad=int(scale == 0), norms=[1, 1]) for scale in (0, 2)]
    more = [_row(scale, [0.0], scores={}, steps=16, norms=[1, 1]) for scale in (0, 2)]
    assert [(o.steps, o.scale) for o in advise([*few, *more], None).observations] == [(16, 2)]


def test_differences_of_rounding_ask_for_no_number_of_prompts() -> None:
    advice = advise([_row(0, [0.1 + 0.2] * 12), _row(3, [0.3] * 12)], likes_03)
    assert advice.kind == "cannot tell"
    assert "prompts would show" not in advice.why


def test_without_a_judge_and_an_unguided_picture_nothing_is_observed() -> None:
    advice = advise([_measured(2, 0.1, [1, 1])], None)
    assert advice.observations == ()
    assert "no unguided picture" in advice.why


def test_the_headline_of_the_judge_ranks() -> None:
    rows = [
        _row(0, [0], scores={"match": estimate([0.1, 0.1, 0.2, 0.1]), "calm": estimate([0.9, 0.9, 0.91, 0.9])}),
        _row(3, [0], scores={"match": estimate([0.8, 0.8, 0.81, 0.8]), "calm": estimate([0.1, 0.1, 0.11, 0.1])}),
    ]
    calm = Judge(score=likes_03.score, headline="calm", prompts=("a",))
    assert advise(rows, likes_03).best == (8, 3)
    assert advise(rows, calm).best == (8, 0)
