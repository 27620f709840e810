"""Bounds of parity: what an event may be off by, the coarsest arithmetic of a run, how often a network compiles."""

import math

import pytest
import torch

from fmcheck.case import Case
from fmcheck.record.compiled import CountedCall
from fmcheck.record.trace import Call, Trace
from fmcheck.tolerance.compiling import numbers_allowed, sizes_allowed
from fmcheck.tolerance.devices import event_bound, seen_eps

FLOAT32 = torch.finfo(torch.float32).eps


@pytest.mark.parametrize(
    ("drift", "before", "bound"),
    [
        (0.0, 0.0, math.sqrt(FLOAT32)),
        (0.01, 0.0, 0.01),
        (0.0, 1e-6, (1e-6 + FLOAT32) / math.sqrt(FLOAT32)),
        (0.01, 1e-6, 0.01),
        (0.0, 1e-3, 1.0),
        (3.0, 0.0, 1.0),
    ],
)
def test_an_event_may_amplify_what_lies_before_it_by_the_condition_that_is_allowed(
    drift: float, before: float, bound: float
) -> None:
    assert event_bound(drift, before, FLOAT32) == pytest.approx(bound)


def test_the_coarsest_dtype_that_a_run_shows_counts() -> None:
    def trace(state: torch.dtype, velocity: torch.dtype) -> Trace:
        call = Call("velocity", 0, inputs={"x": torch.zeros(1, dtype=state)}, output=torch.zeros(1, dtype=velocity))
        return Trace(Case(), calls=[call])

    assert seen_eps(torch.float64, trace(torch.float64, torch.float64)) == 2**-52
    assert seen_eps(torch.float64, trace(torch.float32, torch.float64)) == 2**-23
    assert seen_eps(torch.float32, trace(torch.float32, torch.bfloat16)) == 2**-7
    assert seen_eps(torch.float16, trace(torch.float32, torch.float32)) == 2**-10
    assert seen_eps(torch.float32, Trace(Case())) == 2**-23


@pytest.mark.parametrize(("further", "allowed"), [(0, 0), (1, 1), (3, 3), (4, 3), (9, 8)])
def test_the_last_of_several_sizes_tells_a_constant_from_a_symbol(further: int, allowed: int) -> None:
    assert sizes_allowed(further) == allowed


def test_numbers_are_constants_at_first() -> None:
    call = CountedCall(signature=(float, float), numbers=2, sizes=(), compiled=True, reason="")
    assert numbers_allowed(call) == 4
