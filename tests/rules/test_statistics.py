"""The tests of randomness: no more false alarms than they claim, and enough power for what they are there for."""

import inspect

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from fmcheck.rules import select_rules
from fmcheck.rules.fm4_text_law import Draws
from fmcheck.rules.fm9_training import _ENOUGH_TIMES
from fmcheck.tolerance import (
    FALSE_ALARM_BUDGET,
    SHARE,
    STATISTICAL_TESTS,
    ks_critical,
    ks_distance,
    noise_bounds,
    signed_mean_bound,
    signed_sum_bound,
    statistics,
)

# A share of the budget that a simulation can see.
VISIBLE = 0.05


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def not_more_often(alarms: Tensor, share: float) -> None:
    """Whether a count of alarms is one that `share` allows, at four standard deviations of the count."""
    assert float(alarms.double().mean()) <= share + 4 * (share / len(alarms)) ** 0.5


def test_the_budget_is_shared_by_all_tests_of_the_rules_that_name_it() -> None:
    assert sum(STATISTICAL_TESTS.values()) * SHARE == pytest.approx(FALSE_ALARM_BUDGET)
    assert [rule.code for rule in select_rules() if "false" in rule.doc and "alarm" in rule.doc] == list(
        STATISTICAL_TESTS
    )
    bounds = ("binomial_range", "block_shows", "exchange_shows", "ks_critical", "noise_bounds")
    for name in (*bounds, "signed_mean_bound", "signed_sum_bound"):
        assert inspect.signature(getattr(statistics, name)).parameters["share"].default == SHARE


# Sums of signs.


@pytest.mark.parametrize("sizes", ["equal", "normal", "one large", "heavy"])
def test_signed_sums_keep_their_share_whatever_the_sizes(sizes: str) -> None:
    trials, count = 20_000, 40
    size = {
        "equal": torch.ones(count),
        "normal": normal(count, seed=1).abs(),
        "one large": torch.cat([torch.ones(count - 1), torch.tensor([6.0])]),
        "heavy": 1 / torch.linspace(0.01, 1, count),
    }[sizes].double()
    signs = torch.sign(normal(trials, count))
    sums = (signs * size).sum(1) / size.norm()
    not_more_often(sums > signed_sum_bound(VISIBLE), VISIBLE)
    means = (signs * size / size.max()).mean(1)
    not_more_often(means.abs() > signed_mean_bound(count, VISIBLE), VISIBLE)


def test_signed_bounds_are_hoeffdings() -> None:
    assert np.exp(-(signed_sum_bound(1e-7) ** 2) / 2) == pytest.approx(1e-7)
    assert 2 * np.exp(-(signed_mean_bound(500, 1e-7) ** 2) * 500 / 2) == pytest.approx(1e-7)
    # Against the exact law of a sum of 500 signs: valid, and not twenty times too careful.
    heads = stats.binom(500, 0.5)
    tail = 2 * heads.sf(np.ceil(250 + 250 * signed_mean_bound(500, 1e-7)) - 1)
    assert 5e-9 < tail <= 1e-7


def draws(seed: int, *, shift: float = 0.0, ratio: float = 1.0, rows: tuple[int, int] = (21, 60)) -> Draws:
    """Three prompts of a text latent like the tiny model's: means 0.85 and noise 0.35 wide, of unequal widths."""
    mu, sigma, apart = 0.85 * normal(3, 1, 2048, seed=seed), 0.35 * torch.exp(normal(1, 2048) / 4), normal(3, 1, 2048)
    noise = normal(3, sum(rows), 2048, seed=seed + 1000)
    sampled = mu + sigma * (shift * apart + ratio * noise[:, : rows[0]])
    trained = mu + sigma * noise[:, rows[0] :]
    return Draws(dict(enumerate(sampled)), dict(enumerate(trained)), torch.float32)


def test_text_latents_of_one_law_raise_no_more_alarms_than_allowed() -> None:
    places, widths = [], []
    for seed in range(120):
        found = draws(seed, rows=(4, 6))
        places.append(found.place[0])
        widths.append(abs(found.width) / signed_mean_bound(found.pairs, VISIBLE))
    not_more_often(torch.tensor(places) > signed_sum_bound(VISIBLE), VISIBLE)
    not_more_often(torch.tensor(widths) > 1, VISIBLE)
    assert max(places) < signed_sum_bound()


def test_text_latents_of_two_laws_are_told_apart() -> None:
    for seed in range(10):
        used, allowed = draws(seed, shift=0.15).place
        assert used > allowed, "means that are 0.15 of the noise apart"
        for ratio in (0.93, 1.07):
            found = draws(seed, ratio=ratio)
            assert abs(found.width) > signed_mean_bound(found.pairs)
            assert found.ratio == pytest.approx(ratio, rel=0.02)


def test_rounding_is_no_shift_and_no_width() -> None:
    mu = normal(1, 2048)
    rounded = {"a prompt": mu + 1e-7 * normal(20, 2048)}
    other = {"a prompt": mu * (1 + 1e-7) + torch.zeros(30, 1)}
    found = Draws(rounded, other, torch.float32)
    used, allowed = found.place
    assert used <= allowed
    assert abs(found.width) < signed_mean_bound(found.pairs)
    used, allowed = Draws(rounded, {"a prompt": 1.01 * other["a prompt"]}, torch.float32).place
    assert used > allowed, "a hundredth is more than rounding, with no noise around it"


# Normal noise.


def moments(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Distance from their expectations of all squares, the worst row's and the worst pair's, for `[trials, R, D]`."""
    rows, numbers = x.shape[1:]
    gram = x @ x.transpose(1, 2) - numbers * torch.eye(rows, dtype=x.dtype)
    squares = gram.diagonal(dim1=1, dim2=2)
    pairs = (gram - torch.diag_embed(squares)).abs().amax((1, 2))
    return squares.sum(1).abs(), squares.abs().amax(1), pairs


@pytest.mark.parametrize(("rows", "numbers"), [(2, 8), (6, 100), (3, 500)])
def test_squares_and_products_of_normal_rows_keep_their_share(rows: int, numbers: int) -> None:
    whole, row, pair = moments(normal(4000, rows, numbers))
    bounds = noise_bounds(rows, numbers, VISIBLE)
    not_more_often((whole > bounds.whole) | (row > bounds.row) | (pair > bounds.pair), VISIBLE)


def test_the_bound_on_squares_is_that_of_the_chi_square_law() -> None:
    bounds, forms = noise_bounds(1, 2048, 1e-7), 2
    for n, bound in ((2048, bounds.row), (2048, bounds.whole)):
        tail = stats.chi2(n).sf(n + bound) + stats.chi2(n).cdf(n - bound)
        assert 1e-10 < tail <= 1e-7 / forms


def test_noise_that_is_not_independent_or_too_wide_is_seen() -> None:
    x = normal(1, 6, 2048)
    bounds = noise_bounds(6, 2048)
    assert all(float(found) <= bound for found, bound in zip(moments(x), bounds, strict=True))
    assert float(moments(x[:, :1].expand(1, 6, 2048))[2]) > bounds.pair
    assert float(moments(0.95 * x)[0]) > bounds.whole
    assert float(moments(torch.cat([x[:, :5], 1.3 * x[:, 5:]], 1))[1]) > bounds.row


def test_the_distance_is_that_of_scipy() -> None:
    x = normal(700)
    expected = stats.kstest(x.numpy(), "norm").statistic
    assert ks_distance(torch.special.ndtr(x)) == pytest.approx(expected, rel=1e-12)
    # A number that may be anything within 0.1 counts for the law as far as it can.
    assert ks_distance(torch.special.ndtr(x + 0.1), torch.special.ndtr(x - 0.1)) < expected


# FM902: times.


def logit_normal(t: float) -> float:
    return float(stats.norm.cdf(np.log(t / (1 - t))))


def identity(t: float) -> float:
    return t


def power(samples: int, true: object, law: object) -> float:
    """A lower bound, exact: the chance that the count below 0.21 or below 0.79 is further off than allowed."""
    critical = ks_critical(samples)
    (p_low, p_high), (q_low, q_high) = ([f(0.21), f(0.79)] for f in (true, law))  # type: ignore[operator]
    k = np.arange(samples + 1)
    missed = 0.0
    for low in k[np.abs(k / samples - q_low) <= critical]:
        high = low + np.arange(samples - low + 1)
        within = high[np.abs(high / samples - q_high) <= critical] - low
        between = stats.binom.pmf(within, samples - low, (p_high - p_low) / (1 - p_low)).sum()
        missed += stats.binom.pmf(low, samples, p_low) * between
    return 1 - missed


@pytest.mark.parametrize(("true", "law"), [(identity, logit_normal), (logit_normal, identity)])
def test_uniform_and_logit_normal_times_are_told_apart(true: object, law: object) -> None:
    assert power(1024, true, law) > 0.9999
    assert power(_ENOUGH_TIMES, true, law) > 0.99


def test_simulated_times_are_told_apart() -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(300):
        uniform = torch.rand(_ENOUGH_TIMES, generator=generator, dtype=torch.float64)
        assert ks_distance(torch.special.ndtr(torch.logit(uniform))) > ks_critical(_ENOUGH_TIMES)
        assert ks_distance(uniform) <= ks_critical(_ENOUGH_TIMES)
        bell = torch.sigmoid(torch.randn(_ENOUGH_TIMES, generator=generator, dtype=torch.float64))
        assert ks_distance(bell) > ks_critical(_ENOUGH_TIMES)
