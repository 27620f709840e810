"""The test of a fallen score: exact against counting by hand, valid in simulations, and sharp enough to be of use."""

from itertools import product

import numpy as np
import pytest
import torch
from scipy import stats

from fmcheck.tolerance import SHARE, drop_of, drop_shows

SIXTHS = np.arange(7) / 6


def test_the_chance_is_that_of_counting_by_hand() -> None:
    # Pools {1, 1, 0} and {1, 1/2, 1/2}: of the nine equally likely sums 1, 1/2, 1/2 are the lowest.
    drop = drop_of([[1.0, 1.0], [1.0, 0.5]], [0.0, 0.5])
    assert drop.chance == pytest.approx(2 / 9)
    assert drop.used == pytest.approx(3.5 / 4 - 0.25)


def test_the_chance_is_that_of_going_through_all_exchanges() -> None:
    rng = np.random.default_rng(3)
    earlier, new = rng.choice(SIXTHS, (2, 7)), rng.choice(SIXTHS[:4], 7)
    pools = np.vstack([earlier, new])
    sums = [sum(pools[row, i] for i, row in enumerate(rows)) for rows in product(range(3), repeat=7)]
    expected = np.mean(np.array(sums) <= new.sum() + 1e-9)
    assert drop_of(earlier.tolist(), new.tolist()).chance == pytest.approx(expected, rel=1e-12)


def test_with_one_earlier_score_it_is_the_sign_flip_test() -> None:
    # All of 12 differences below zero: one of 2^12 choices of signs.
    drop = drop_of([[1.0] * 12], [0.5] * 12)
    assert drop.chance == pytest.approx(2.0**-12)
    assert drop.allowed == pytest.approx(0.5), "so few prompts may fall as far as they can"


@pytest.mark.parametrize(("prompts", "seeds", "fails"), [(7, 8, False), (8, 8, True), (23, 1, False), (24, 1, True)])
def test_it_takes_as_many_fallen_prompts_as_the_documentation_says(prompts: int, seeds: int, fails: bool) -> None:
    earlier = [[1.0] * 32] * seeds
    drop = drop_of(earlier, [0.0] * prompts + [1.0] * (32 - prompts))
    assert (drop.used > drop.allowed) == fails
    assert drop.chance == pytest.approx((seeds + 1.0) ** -prompts)


def test_failing_is_having_a_chance_below_the_share() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        drop = drop_of(rng.choice(SIXTHS, (2, 6)).tolist(), rng.choice(SIXTHS[:3], 6).tolist(), share=0.05)
        assert (drop.used > drop.allowed) == (drop.ratio > 1) == (drop.chance <= 0.05)


def test_scores_that_did_not_fall_use_nothing() -> None:
    for new in ([0.5] * 9, [1.0] * 9):
        drop = drop_of([[0.5] * 9] * 3, new)
        assert drop.used == drop.ratio == 0
        assert drop.used <= drop.allowed


@pytest.mark.parametrize("law", ["ties", "rare failures", "0 and 1", "continuous"])
@pytest.mark.parametrize("seeds", [1, 4])
def test_scores_of_one_law_raise_no_more_alarms_than_allowed(law: str, seeds: int) -> None:
    rng, trials, prompts, share = np.random.default_rng(1), 1500, 10, 0.05
    # Prompts differ in how hard they are, which pairing takes out.
    hard = np.linspace(0.5, 0.99, prompts)
    draws = {
        "ties": lambda: rng.binomial(6, hard, (seeds + 1, prompts)) / 6,
        "rare failures": lambda: 1.0 - (rng.random((seeds + 1, prompts)) < 0.05) / 6,
        "0 and 1": lambda: (rng.random((seeds + 1, prompts)) < hard).astype(float),
        "continuous": lambda: rng.beta(8 * hard, 8 * (1 - hard), (seeds + 1, prompts)),
    }[law]
    chances = []
    for _ in range(trials):
        scores = draws()
        chances.append(drop_of(scores[:-1].tolist(), scores[-1].tolist()).chance)
    alarms = int((np.array(chances) <= share).sum())
    # As many as would come in one of 10,000 such simulations.
    assert alarms <= stats.binom.ppf(1 - 1e-4, trials, share)


def test_golden_scores_that_were_lucky_are_no_alarm() -> None:
    """The best of 40 golden runs, on the code that made them: what a team does that keeps its nicest pictures."""
    rng = np.random.default_rng(2)
    runs = rng.binomial(6, 0.9, (40, 32)) / 6
    best = runs[runs.mean(1).argmax()]
    for again in rng.binomial(6, 0.9, (200, 32)) / 6:
        drop = drop_of([best.tolist()], again.tolist())
        assert drop.used <= drop.allowed


def power(right: float, changed: float, affected: int, *, prompts: int = 96, seeds: int = 8) -> float:
    """How often six attributes that are right so often are noticed to be so seldom right in some of the prompts."""
    rng, noticed, trials = np.random.default_rng(4), 0, 30
    now = np.where(np.arange(prompts) < affected, changed, right)
    for _ in range(trials):
        drop = drop_of((rng.binomial(6, right, (seeds, prompts)) / 6).tolist(), (rng.binomial(6, now) / 6).tolist())
        noticed += drop.used > drop.allowed
    return noticed / trials


def test_a_fall_of_a_tenth_everywhere_is_noticed() -> None:
    assert power(0.95, 0.85, 96) > 0.95


def test_one_attribute_that_is_wrong_in_a_quarter_of_the_prompts_is_noticed_in_its_own_score() -> None:
    """Two of eight colours exchanged: too little for the mean of six attributes, and plain in the colour's own."""
    rng = np.random.default_rng(5)
    new = np.where(np.arange(96) < 24, 0.0, rng.random(96) < 0.95)
    drop = drop_of((rng.random((8, 96)) < 0.95).astype(float).tolist(), new.tolist(), SHARE / 8)
    assert drop.used > drop.allowed


def test_a_slight_fall_is_left_alone() -> None:
    assert power(0.95, 0.93, 96) == 0


def test_nothing_shows_where_nothing_can_fall() -> None:
    good, bad = [[1.0] * 32] * 8, [[0.0] * 32] * 8
    assert drop_shows(good)
    assert not drop_shows(bad)
    # 8 prompts of 8 seeds above zero are just enough: 9^-8 = 2.3e-8, and 9^-7 = 2.1e-7 is more than the share.
    some = torch.zeros(8, 32)
    some[:, :8] = 1 / 6
    assert drop_shows(some.tolist())
    some[:, 7] = 0
    assert not drop_shows(some.tolist())
    assert 9.0**-8 < SHARE < 9.0**-7
