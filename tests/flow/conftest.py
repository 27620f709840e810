"""An independent reference for the tests of the time grid: mpmath at 50 digits."""

from collections.abc import Callable
from functools import cache

import mpmath
import pytest

from fmcheck.spec import FlowSpec


@cache
def _exact_edges(num_steps: int, spec: FlowSpec) -> tuple[mpmath.mpf, ...]:
    with mpmath.workdps(50):
        clamp, mean, std = mpmath.mpf(spec.grid_clamp), mpmath.mpf(spec.grid_mean), mpmath.mpf(spec.grid_std)
        shift = mpmath.mpf(spec.grid_shift)
        edges = []
        for k in range(num_steps + 1):
            q = clamp + (1 - 2 * clamp) * mpmath.mpf(k) / num_steps
            if spec.grid == "uniform" or q in (0, 1):
                edges.append(q)
            elif spec.grid == "shifted":
                sigma = 1 - q
                edges.append(1 - shift * sigma / (1 + (shift - 1) * sigma))
            else:
                z = mpmath.sqrt(2) * mpmath.erfinv(2 * q - 1)
                edges.append(1 / (1 + mpmath.exp(-(mean + std * z))))
        return tuple(edges)


@pytest.fixture(scope="session")
def exact_edges() -> Callable[[int, FlowSpec], tuple[mpmath.mpf, ...]]:
    """`exact_edges(K, spec)`: the edges as 50-digit numbers."""
    return _exact_edges
