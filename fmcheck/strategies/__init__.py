"""Hypothesis strategies for cases, calls and scenarios of a subject, to use here and in tests of one's own.

    from hypothesis import given
    from fmcheck.strategies import cases

    @given(cases(subject))
    def test_pictures_have_their_size(case): ...

Everything shrinks towards one prompt, the smallest size, one step, guidance weight 0, seed 0, the native dtype, no
disturbance. Half of the sizes have only distinct axes (exchanged axes show), half force two of them to be equal
(broadcasts show). What a case may cost is bounded by :class:`Domain`.
"""

from fmcheck.strategies.axes import (
    Domain,
    batch_sizes,
    guidance_scales,
    invalid_sizes,
    prompt_lists,
    seeds,
    sizes,
    step_counts,
)
from fmcheck.strategies.cases import calls, cases
from fmcheck.strategies.grids import time_grids
from fmcheck.strategies.scenarios import scenarios

__all__ = [
    "Domain",
    "batch_sizes",
    "calls",
    "cases",
    "guidance_scales",
    "invalid_sizes",
    "prompt_lists",
    "scenarios",
    "seeds",
    "sizes",
    "step_counts",
    "time_grids",
]
