"""Student's t: the bound of an interval for a mean of few differences."""

import math
import statistics
from collections.abc import Sequence

__all__ = ["coverage", "half_width", "paired_half_width", "quantile"]


def coverage(t: float, freedom: int) -> float:
    """`P(|T| <= t)` of Student's t with so many degrees of freedom, exactly.

    With `theta = atan(t / sqrt(n))`, a finite sum of powers of `cos(theta)` for whole n (Abramowitz and Stegun,
    Handbook of Mathematical Functions, 26.7.3 and 26.7.4).
    """
    theta = math.atan(t / math.sqrt(freedom))
    sine, cosine = math.sin(theta), math.cos(theta)
    odd = freedom % 2
    term, total = (cosine if odd else 1.0), 0.0
    # Odd: cos + 2/3 cos^3 + (2 4)/(3 5) cos^5 + …; even: 1 + 1/2 cos^2 + (1 3)/(2 4) cos^4 + …; up to cos^(n - 2).
    for power in range(odd, freedom - 1, 2):
        total += term
        term *= cosine * cosine * (power + 1) / (power + 2)
    return (theta + sine * total) * 2 / math.pi if odd else sine * total


def quantile(alpha: float, freedom: int) -> float:
    """The t that `|T|` exceeds with probability `alpha`, by bisection to the last bit that matters."""
    low, high = 0.0, 1.0
    while 1 - coverage(high, freedom) > alpha:
        high *= 2
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if 1 - coverage(middle, freedom) > alpha else (low, middle)
    return (low + high) / 2


def half_width(values: Sequence[float], alpha: float) -> float:
    """`t sd / sqrt(n)`: half the `1 - alpha` interval of the mean of two or more independent numbers."""
    return quantile(alpha, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))


def paired_half_width(differences: Sequence[float], alpha: float) -> float | None:
    """:func:`half_width` of paired differences; None where they are too few to tell anything.

    Equal differences, as one alone, say nothing of their spread. Then the sign test decides: 2 / 2^n for all of one
    sign, and no width from where that is at most `alpha`.
    """
    # Rounding errors of equal differences are no spread.
    if max(differences) - min(differences) > 1e-12 * max(1.0, *map(abs, differences)):
        return half_width(differences, alpha)
    return 0.0 if 2.0 ** (1 - len(differences)) <= alpha else None
