"""Tests of randomness, which share one declared budget of false alarms."""

import math
from collections.abc import Mapping
from itertools import accumulate
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = [
    "FALSE_ALARM_BUDGET",
    "STATISTICAL_TESTS",
    "NoiseBounds",
    "SHARE",
    "binomial_range",
    "block_shows",
    "exchange_shows",
    "ks_critical",
    "ks_distance",
    "noise_bounds",
    "signed_mean_bound",
    "signed_sum_bound",
]

# Chance of a false alarm that one run of all statistical rules together may have; each test takes an equal share.
FALSE_ALARM_BUDGET = 1e-6
# How many tests each rule makes. Tests of one rule may share their draws: chances of false alarms add up all the same.
STATISTICAL_TESTS: Mapping[str, int] = MappingProxyType(
    {
        "FM406": 2,  # place and width of the text latent
        "FM407": 4,  # law, and squares and products, of the noise in sampling and in training
        "FM609": 2,  # fall of the score of pictures, and of all of its parts
        "FM902": 1,  # law of the times
        "FM905": 4,  # share of null rows, law of their times, whether they are a block, whether they are exchanged
    }
)
SHARE = FALSE_ALARM_BUDGET / sum(STATISTICAL_TESTS.values())


def ks_critical(samples: int, share: float = SHARE) -> float:
    """Kolmogorov-Smirnov distance that `samples` draws of the right law exceed with a test's share of the budget.

    Massart's form of the Dvoretzky-Kiefer-Wolfowitz inequality: `P(D > d) <= 2 exp(-2 n d^2)`, exact for every n.
    """
    return math.sqrt(math.log(2 / share) / (2 * samples))


def ks_distance(above: Tensor, below: Tensor | None = None) -> float:
    """`sup |F_n - F|` from the law's probabilities at the samples, `[n]` float64 (slightly above and below them)."""
    high = above.sort().values
    low = high if below is None else below.sort().values
    share = torch.arange(len(high) + 1, dtype=torch.float64) / len(high)
    return float(torch.maximum(share[1:] - high, low - share[:-1]).max().clamp(min=0))


def binomial_range(samples: int, probability: float, share: float = SHARE) -> tuple[int, int]:
    """Counts that `samples` independent rows of a probability may have, each tail at half of the test's share.

    The exact binomial tails, summed from logarithms: the smallest `k` with `P(X <= k)` and the largest with
    `P(X >= k)` above the share. (The same test as whether the Clopper-Pearson interval of `k` holds the probability.)
    """
    masses = [_binomial_mass(k, samples, probability) for k in range(samples + 1)]
    low = next(k for k, below in enumerate(accumulate(masses)) if below > share / 2)
    high = samples - next(k for k, above in enumerate(accumulate(reversed(masses))) if above > share / 2)
    return low, high


def _binomial_mass(k: int, n: int, p: float) -> float:
    if p in (0, 1):
        return float(k == n * p)
    ways = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    return math.exp(ways + k * math.log(p) + (n - k) * math.log1p(-p))


def exchange_shows(rows: int, share: float = SHARE) -> bool:
    """Whether a random permutation leaves all of `rows` in their places with less than a test's share: `1 / rows!`."""
    return math.lgamma(rows + 1) > -math.log(share)


def block_shows(rows: int, marked: int, share: float = SHARE) -> bool:
    """Whether `marked` of `rows` independent flags are neighbours with less than a test's share of the budget.

    All choices of as many rows are equally likely, and `rows - marked + 1` of them are one block.
    """
    return math.comb(rows, marked) > (rows - marked + 1) / share


def signed_sum_bound(share: float = SHARE) -> float:
    """What `sum(w) / norm(w)` exceeds with a test's share, for independent `w` that are symmetric about zero.

    Given the sizes `|w|`, only the signs are random, each even: `E exp(u s |w|) = cosh(u |w|) <= exp(u^2 w^2 / 2)`, so
    `P(sum(w) > d norm(w)) <= exp(-d^2 / 2)` for any sizes and any number of them (Hoeffding; one-sided).
    """
    return math.sqrt(-2 * math.log(share))


def signed_mean_bound(samples: int, share: float = SHARE) -> float:
    """What `|mean(q)|` exceeds with a test's share, for `samples` independent symmetric `q` of size up to 1.

    Hoeffding, two-sided: `P(|sum(q)| > d) <= 2 exp(-d^2 / 2n)`. It holds for small `q` too, unlike a bound in units of
    their norm, which what little rounding leaves of two equal numbers would exceed.
    """
    return math.sqrt(2 * math.log(2 / share) / samples)


class NoiseBounds(NamedTuple):
    """How far sums over standard normal rows may be from their expectation.

    Attributes:
        whole: of the squares of all numbers.
        row: of the squares of one row.
        pair: of the products of two rows.
    """

    whole: float
    row: float
    pair: float


def noise_bounds(rows: int, numbers: int, share: float = SHARE) -> NoiseBounds:
    """Bounds on all squares and products of `rows` rows of `numbers` standard normal numbers, together at one share.

    For a quadratic form `g' A g` of normal numbers, `P(g' A g - tr A > 2 |A|_F sqrt(t) + 2 |A| t) <= exp(-t)`, with
    the Frobenius and the operator norm (Laurent and Massart, Annals of Statistics 28 (2000), lemma 1, whose proof
    holds for eigenvalues of both signs). The sum of `n` squares has `|A|_F^2 = n` and `|A| = 1`; the sum of `n`
    products of two rows has `|A|_F^2 = n / 2` and `|A| = 1 / 2`. `t` counts both signs, every row, every pair and the
    whole.
    """
    forms = rows * (rows + 1) // 2 + 1
    t = math.log(2 * forms / share)
    squares = [2 * math.sqrt(n * t) + 2 * t for n in (rows * numbers, numbers)]
    return NoiseBounds(squares[0], squares[1], math.sqrt(2 * numbers * t) + t)
