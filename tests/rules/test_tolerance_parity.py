"""Bounds of parity: what an event may be off by, the coarsest arithmetic of a run, how often a network compiles."""

import math

import pytest
import torch

from fmcheck.case import Case
from fmcheck.record.compiled import CountedCall
from fmcheck.record.trace import Call, Trace
from fmcheck.tolerance.compiling import compilations_allowed, numbers_allowed
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


def call(*sizes: tuple[int, ...], numbers: int = 0, kind: str = "") -> CountedCall:
    signature = (*((torch.float32, shape) for shape in sizes), *(float,) * numbers, kind)
    return CountedCall(signature=signature, numbers=numbers, sizes=sizes, compiled=False, reason="")


def state(rows: int, height: int = 2, width: int = 3) -> CountedCall:
    return call((rows, 32, height, width), (rows,))


def test_one_shape_is_one_compilation() -> None:
    assert compilations_allowed([state(4)] * 9) == 1


def test_axes_that_vary_together_are_one_kind() -> None:
    assert compilations_allowed([state(4), state(6)]) == 2
    assert compilations_allowed([state(4), state(6), state(10)]) == 3
    assert compilations_allowed([state(rows) for rows in range(2, 30)]) == 3, "a symbol serves all sizes"


def test_every_kind_of_axis_counts_and_so_does_a_size_of_one() -> None:
    assert compilations_allowed([state(4), state(6), state(8), state(4, 5), state(4, 7)]) == 5
    assert compilations_allowed([state(4), state(6), state(8), state(1)]) == 4


def test_another_kind_of_call_is_compiled_for_itself() -> None:
    assert compilations_allowed([state(4), call((4, 32, 2, 3)), call((4, 32, 2, 3), kind="unguided")]) == 3


def test_numbers_are_constants_at_first() -> None:
    assert numbers_allowed(call((4,), numbers=2)) == 4
    assert compilations_allowed([call((4,), numbers=1)]) == 3
