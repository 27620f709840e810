"""95% intervals of scores and of what they lost."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from fmcheck.tolerance import half_width, paired_half_width

__all__ = ["Estimate", "estimated", "paired", "wilson"]

_ALPHA = 0.05
# Between the same scores, summed in another order.
_ROUNDING = 1e-12
# Two-sided 95% quantile of the normal law.
_Z = statistics.NormalDist().inv_cdf(1 - _ALPHA / 2)


@dataclass(frozen=True)
class Estimate:
    """A mean and its 95% interval."""

    mean: float
    low: float
    high: float


def wilson(values: Sequence[float]) -> Estimate:
    """The mean of numbers in [0, 1], with Wilson's interval (Journal of the American Statistical Association 22, 1927).

    Made for 0 and 1, whose variance is `p (1 - p)`. Other numbers in [0, 1] of that mean have no larger one, so that
    the interval is then wider than it need be, and never empty where all numbers are equal.
    """
    count, mean = len(values), statistics.fmean(values)
    centre = (mean + _Z**2 / (2 * count)) / (1 + _Z**2 / count)
    half = _Z / (1 + _Z**2 / count) * math.sqrt(mean * (1 - mean) / count + _Z**2 / (4 * count**2))
    return Estimate(mean, max(0.0, centre - half), min(1.0, centre + half))


def estimated(values: Sequence[float]) -> Estimate:
    """The mean of numbers in [0, 1]: Wilson's interval for 0 and 1, and where all are equal; else Student's t."""
    if set(values) <= {0.0, 1.0} or len(set(values)) == 1:
        return wilson(values)
    mean, half = statistics.fmean(values), half_width(values, _ALPHA)
    return Estimate(mean, max(0.0, mean - half), min(1.0, mean + half))


def paired(values: Sequence[float], clean: Sequence[float]) -> Estimate:
    """The mean of `value - clean`, prompt by prompt, and its interval (:func:`paired_half_width`)."""
    apart = [value - other for value, other in zip(values, clean, strict=True)]
    mean, width = statistics.fmean(apart), paired_half_width(apart, _ALPHA)
    alike = max(map(abs, apart)) <= _ROUNDING
    half = 0.0 if alike else 2.0 if width is None else width
    return Estimate(mean, max(-1.0, mean - half), min(1.0, mean + half))
