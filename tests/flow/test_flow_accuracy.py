"""Reference grids against mpmath at 50 digits: half a unit in the last place of float64, both tails included."""

from decimal import Inexact, localcontext

import mpmath
import numpy as np
import pytest
import torch

from fmcheck.flow import edge_error_bound, time_edges
from fmcheck.spec import FlowSpec

GRIDS = [
    FlowSpec(),
    FlowSpec(grid_mean=0.4, grid_std=1.5),
    FlowSpec(grid_mean=-1.0, grid_std=0.5),
    FlowSpec(grid_mean=-1.3, grid_std=1.6),
    FlowSpec(grid_mean=1.0, grid_std=4.0),
    FlowSpec(grid_clamp=1e-3),
    FlowSpec(grid_clamp=1e-6),
    FlowSpec(grid="uniform"),
    FlowSpec(grid="uniform", grid_clamp=1e-3),
    FlowSpec(grid="shifted", grid_shift=3.0),
    FlowSpec(grid="shifted", grid_shift=0.3),
    FlowSpec(grid="shifted", grid_shift=1.15),
    FlowSpec(grid="shifted", grid_shift=12.0, grid_clamp=0.05),
]
# Correctly rounded; the last digit is for mpmath, whose own unit is rounded to float64 here.
ULP = 0.5001


def exact(k: int, num_steps: int, spec: FlowSpec) -> mpmath.mpf:
    """The definition, with as many digits as mpmath is told to keep."""
    clamp = mpmath.mpf(spec.grid_clamp)
    q = clamp + (1 - 2 * clamp) * mpmath.mpf(k) / num_steps
    if spec.grid == "uniform":
        return q
    if spec.grid == "shifted":
        sigma = 1 - q
        return 1 - spec.grid_shift * sigma / (1 + (mpmath.mpf(spec.grid_shift) - 1) * sigma)
    if q in (0, 1):
        return q
    quantile = mpmath.sqrt(2) * mpmath.erfinv(2 * q - 1)
    return 1 / (1 + mpmath.exp(-(mpmath.mpf(spec.grid_mean) + mpmath.mpf(spec.grid_std) * quantile)))


def error_in_ulp(spec: FlowSpec, num_steps: int, ks: range | np.ndarray) -> float:
    edges = time_edges(num_steps, spec).numpy()
    # `2 q - 1` needs as many digits as `q` has zeros.
    with mpmath.workdps(380 if 0 < spec.grid_clamp < 1e-20 else 50):
        errors = []
        for k in map(int, ks):
            right = exact(k, num_steps, spec)
            unit = float(np.spacing(float(right))) if right else 5e-324
            errors.append(float(abs(mpmath.mpf(float(edges[k])) - right) / unit))
    return max(errors)


@pytest.mark.parametrize(
    "spec", GRIDS, ids=lambda s: f"{s.grid}-{s.grid_mean}-{s.grid_std}-{s.grid_clamp}-{s.grid_shift}"
)
def test_edges_are_correctly_rounded(spec: FlowSpec) -> None:
    for num_steps in (1, 2, 3, 7, 64):
        assert error_in_ulp(spec, num_steps, range(num_steps + 1)) <= ULP
    for num_steps in (1000, 4096):
        ends = np.r_[0:8, num_steps - 7 : num_steps + 1]
        between = np.linspace(8, num_steps - 8, 12).astype(int)
        assert error_in_ulp(spec, num_steps, np.r_[ends, between]) <= ULP


@pytest.mark.slow
@pytest.mark.parametrize(
    "spec", GRIDS, ids=lambda s: f"{s.grid}-{s.grid_mean}-{s.grid_std}-{s.grid_clamp}-{s.grid_shift}"
)
def test_all_edges_of_4096_steps_are_correctly_rounded(spec: FlowSpec) -> None:
    assert error_in_ulp(spec, 4096, range(4097)) <= ULP


@pytest.mark.parametrize(
    ("law", "expected"),
    [
        ({"grid_mean": -1e300}, [0.0, 0.0, 0.0, 1.0]),
        ({"grid_mean": 1e300}, [0.0, 1.0, 1.0, 1.0]),
        ({"grid_std": 1e300}, [0.0, 0.0, 1.0, 1.0]),
        ({"grid_std": 5e-324}, [0.0, 0.5, 0.5, 1.0]),
        ({"grid": "shifted", "grid_shift": 5e-324}, [0.0, 1.0, 1.0, 1.0]),
    ],
    ids=str,
)
def test_laws_at_the_ends_of_float64_are_legal(law, expected):
    assert time_edges(3, FlowSpec(**law)).tolist() == expected


@pytest.mark.parametrize("law", [{"grid_mean": -1e300}, {"grid_std": 1e300}, {"grid": "shifted", "grid_shift": 1e300}])
def test_bounds_of_laws_at_the_ends_of_float64_are_bounds(law):
    bound = edge_error_bound(3, FlowSpec(**law), torch.float32)
    assert bool(((bound >= 0) & (bound <= 1)).all())


@pytest.mark.parametrize("clamp", [5e-324, 1e-310, 1e-40, 1e-29, 1e-12])
def test_clamps_far_below_the_resolution_of_one_keep_their_tail(clamp):
    assert error_in_ulp(FlowSpec(grid="shifted", grid_shift=3.0, grid_clamp=clamp), 2, range(3)) <= ULP
    # Below 1e-30 the quantile is that of float64, whose rounding a tail multiplies by its size, up to 38.
    assert error_in_ulp(FlowSpec(grid_clamp=clamp), 2, range(3)) <= (ULP if clamp > 1e-30 else 100)


def test_the_callers_decimal_arithmetic_is_neither_used_nor_changed():
    spec = FlowSpec(grid_mean=0.123, grid_clamp=1e-4)
    with localcontext(prec=3) as context:
        context.traps[Inexact] = True
        found = time_edges(5, spec)
        assert (context.prec, context.flags[Inexact]) == (3, False)
    assert torch.equal(found, time_edges(5, spec))
    assert error_in_ulp(spec, 5, range(6)) <= ULP
