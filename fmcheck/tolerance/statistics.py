"""Tests of randomness, which share one declared budget of false alarms."""

import math
from itertools import accumulate

__all__ = ["FALSE_ALARM_BUDGET", "STATISTICAL_RULES", "binomial_range", "block_shows", "exchange_shows", "ks_critical"]

# Chance of a false alarm that one run of all statistical rules together may have; each takes an equal share.
FALSE_ALARM_BUDGET = 1e-6
# FM902 (ks_critical) and FM905 (binomial_range, exchange_shows, ks_critical, block_shows): the tests that are made, one
# share each.
STATISTICAL_RULES = 5


def ks_critical(samples: int) -> float:
    """Kolmogorov-Smirnov distance that `samples` draws of the right law exceed with the rule's share of the budget.

    Massart's form of the Dvoretzky-Kiefer-Wolfowitz inequality: `P(D > d) <= 2 exp(-2 n d^2)`, exact for every n.
    """
    return math.sqrt(math.log(2 * STATISTICAL_RULES / FALSE_ALARM_BUDGET) / (2 * samples))


def binomial_range(samples: int, probability: float) -> tuple[int, int]:
    """Counts that `samples` independent rows of a probability may have, each tail at half of the rule's share.

    The exact binomial tails, summed from logarithms: the smallest `k` with `P(X <= k)` and the largest with
    `P(X >= k)` above the share. (The same test as whether the Clopper-Pearson interval of `k` holds the probability.)
    """
    share = FALSE_ALARM_BUDGET / STATISTICAL_RULES / 2
    masses = [_binomial_mass(k, samples, probability) for k in range(samples + 1)]
    low = next(k for k, below in enumerate(accumulate(masses)) if below > share)
    high = samples - next(k for k, above in enumerate(accumulate(reversed(masses))) if above > share)
    return low, high


def _binomial_mass(k: int, n: int, p: float) -> float:
    if p in (0, 1):
        return float(k == n * p)
    ways = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    return math.exp(ways + k * math.log(p) + (n - k) * math.log1p(-p))


def exchange_shows(rows: int) -> bool:
    """Whether a random permutation leaves all of `rows` in their places with less than a rule's share: `1 / rows!`."""
    return math.lgamma(rows + 1) > math.log(STATISTICAL_RULES / FALSE_ALARM_BUDGET)


def block_shows(rows: int, marked: int) -> bool:
    """Whether `marked` of `rows` independent flags are neighbours with less than a rule's share of the budget.

    All choices of as many rows are equally likely, and `rows - marked + 1` of them are one block.
    """
    return math.comb(rows, marked) > (rows - marked + 1) * STATISTICAL_RULES / FALSE_ALARM_BUDGET
