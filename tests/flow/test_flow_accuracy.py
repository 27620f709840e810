"""Reference grids against mpmath at 50 digits: half a unit in the last place of float64, both tails included."""

import mpmath
import numpy as np
import pytest

from fmcheck.flow import time_edges
from fmcheck.spec import FlowSpec

GRIDS = [
    FlowSpec(),
    FlowSpec(grid_mean=0.4, grid_std=1.5),
    FlowSpec(grid_mean=-1.0, grid_std=0.5),
    FlowSpec(grid_clamp=1e-3),
    FlowSpec(grid_clamp=1e-6),
    FlowSpec(grid="uniform"),
    FlowSpec(grid="uniform", grid_clamp=1e-3),
    FlowSpec(grid="shifted", grid_shift=3.0),
    FlowSpec(grid="shifted", grid_shift=0.3),
    FlowSpec(grid="shifted", grid_shift=1.15),
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
    with mpmath.workdps(50):
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
