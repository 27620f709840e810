"""Whether scores fell: new scores of prompts against earlier ones of the same prompts, by exchanging them."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fmcheck.tolerance.statistics import SHARE

__all__ = ["Drop", "drop_of", "drop_shows"]

# Scores are compared in units of 1 / 2520, of which halves to tenths are whole numbers: sums of them tie exactly.
_UNITS = 2520


class Drop(NamedTuple):
    """How far a mean score fell, and how far it may.

    Attributes:
        used: by how much the mean of the new scores is below that of the earlier ones; 0 when it is not.
        allowed: the largest drop that is more likely than the test's share.
        chance: of a drop as large or larger, when nothing changed but the noise.
    """

    used: float
    allowed: float
    chance: float

    @property
    def ratio(self) -> float:
        """Used over allowed: above 1 is no luck."""
        if self.allowed == 0:
            return math.inf if self.used else 0.0
        return self.used / self.allowed


def drop_of(earlier: Sequence[Sequence[float]], new: Sequence[float], share: float = SHARE) -> Drop:
    """The drop from S earlier scores of each of N prompts, `[S][N]`, to one new score of each, `[N]`, all in [0, 1].

    While nothing changes but the noise, the S + 1 scores of a prompt are exchangeable: given what they are, each is as
    likely as the others to be the new one, and prompts are independent. The sum of the new scores then is that of N
    draws, one a prompt out of its S + 1, whose law is summed up exactly here: no normal approximation, which few
    scores of 0 and 1 would not allow, and the earlier scores count as the one sample that they are, whose luck is not
    expected again. `P(chance <= p) <= p` for every p (a permutation test within blocks: Fisher, The Design of
    Experiments (1935), section 21; Lehmann and Romano, Testing Statistical Hypotheses, 3rd ed., theorem 15.2.1).

    The price: a prompt whose score is the lowest of its S + 1 counts for a factor of S + 1 at most, so that a share of
    1e-7 takes 8 prompts that fell below 8 earlier scores each, and 24 prompts with one earlier score each.
    """
    found = _units(new)
    pools = torch.cat([_units(row)[None] for row in earlier] + [found[None]])
    law, total = _law_of_sums(pools), int(found.sum())
    below = law.cumsum(0)
    least = int((below > share).nonzero()[0])
    mean, count = float(pools[:-1].double().mean()) / _UNITS, len(found)
    used, allowed = mean - total / count / _UNITS, mean - least / count / _UNITS
    return Drop(max(used, 0.0), max(allowed, 0.0), float(below[total]))


def drop_shows(earlier: Sequence[Sequence[float]], share: float = SHARE) -> bool:
    """Whether new scores of nothing but 0 would be a drop: earlier ones that are 0 themselves leave nothing to fall."""
    rows = torch.cat([_units(row)[None] for row in earlier])
    zeros = (rows == 0).sum(0) + 1
    return float(zeros.double().log().sum()) - rows.shape[1] * math.log(len(rows) + 1) <= math.log(share)


def _units(scores: Sequence[float]) -> Tensor:
    return (torch.tensor(list(scores), dtype=torch.float64) * _UNITS).round().long()


def _law_of_sums(pools: Tensor) -> Tensor:
    """Probability of every sum of one draw a column of `[S + 1, N]` whole numbers, float64."""
    law = torch.ones(1, dtype=torch.float64)
    for column in pools.T:
        values, counts = column.unique(return_counts=True)
        # Only sums of positive numbers: every probability is right to a few parts in 1e14, however small.
        wider = torch.zeros(len(law) + int(values.max()), dtype=torch.float64)
        for value, count in zip(values.tolist(), counts.tolist(), strict=True):
            wider[value : value + len(law)] += law * (count / len(column))
        law = wider
    return law
