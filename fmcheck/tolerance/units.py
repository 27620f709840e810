"""Roundings: the unit of a dtype, and what several of them in a row add up to."""

import math

import torch

__all__ = ["EXPLAINED", "coarser", "gamma", "half_digits", "unit_roundoff"]

# Agreement that a diagnosis asks for before it names a known mistake. No verdict depends on it: it only separates
# candidate explanations, which differ from each other by percents, from one another.
EXPLAINED = 1e-3


def unit_roundoff(dtype: torch.dtype) -> float:
    """`u = eps / 2` of a floating dtype."""
    return torch.finfo(dtype).eps / 2


def coarser(*dtypes: torch.dtype) -> torch.dtype:
    """The dtype with the largest unit roundoff: what passes through several is as good as the shortest."""
    return max(dtypes, key=unit_roundoff)


def gamma(n: int, dtype: torch.dtype) -> float:
    """Bound on the relative error of `n` consecutive roundings."""
    u = unit_roundoff(dtype)
    return n * u / (1 - n * u)


def half_digits(dtype: torch.dtype) -> float:
    """`sqrt(eps)`: relative agreement between two runs whose kernels may round differently.

    Two correct runs differ by a few eps an operation, which the flow amplifies by its condition number. Asking for
    half of the digits accepts condition numbers up to `1 / sqrt(eps)` (2,900 in float32); a defect that exchanges or
    mixes rows is of order one.
    """
    return math.sqrt(torch.finfo(dtype).eps)
