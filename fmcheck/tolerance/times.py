"""Bounds on what is read of time: edges, step sizes, and times behind an argument."""

import math
from functools import lru_cache

import torch
from torch import Tensor

from fmcheck.flow import edge_error_bound as derived_edge_bound
from fmcheck.record.reading import Reading
from fmcheck.spec import FlowSpec
from fmcheck.tolerance.units import unit_roundoff

__all__ = ["argument_bound", "rounding_shows", "step_bound", "time_bound", "told_bound"]

# The bound depends on the grid alone, and every rule about time asks for it.
edge_error_bound = lru_cache(maxsize=256)(derived_edge_bound)


def step_bound(reading: Reading, dtype: torch.dtype) -> Tensor:
    """Bound `[K]` on `|dt - reference dt|` for a grid computed in `dtype`: both edges, and their difference."""
    edges = edge_error_bound(reading.case.num_steps, reading.spec, dtype)
    return edges[1:] + edges[:-1] + unit_roundoff(dtype) * reading.steps_dt


def time_bound(reading: Reading, argument_dtype: torch.dtype) -> Tensor:
    """Bound `[K, stages]` on `|t - reference t|` of an evaluation time read back from the network's argument.

    The edges' own errors, one rounding of the midpoint, and the affine map: two roundings of values no larger than
    `|offset| + |slope|` in the argument's dtype, divided by the slope on the way back (a whole unit of an integer).
    """
    edges = edge_error_bound(reading.case.num_steps, reading.spec, torch.float32)
    of_step = torch.maximum(edges[1:], edges[:-1]).unsqueeze(1).expand(-1, reading.spec.stages)
    return of_step + unit_roundoff(torch.float32) + told_bound(reading.spec, argument_dtype)


def argument_bound(spec: FlowSpec, dtype: torch.dtype) -> float:
    """Bound on the flow time read back from a time argument that was computed and stored in `dtype`."""
    offset, slope = spec.time_map
    return 2 * unit_roundoff(dtype) * (abs(offset) + abs(slope)) / abs(slope)


def told_bound(spec: FlowSpec, dtype: torch.dtype) -> float:
    """`argument_bound`, or one unit of an integer time argument, which may be rounded or cut off."""
    if dtype.is_floating_point:
        return argument_bound(spec, dtype)
    return 1 / abs(spec.time_map[1])


def rounding_shows(velocities: Tensor) -> bool:
    """Whether velocities `[N, ...]` at N times in a row differ from one to the next beyond their own rounding.

    An element that moves by `d` of its unit in the last place from one time to the next is rounded to the same number
    with a chance of `1 - d`, if its place between two numbers is random; all elements are with `prod(1 - d)`. `d` is
    half of the mean over all N times, since a velocity that starts to move may be half as fast at one end of them as
    on the whole. The chance must be below one in a million, so that velocities that are equal have equal times.
    """
    first, last = velocities[0].detach().cpu(), velocities[-1].detach().cpu()
    ulp = torch.finfo(velocities.dtype).eps * torch.maximum(first.abs(), last.abs()).double()
    moved = (last.double() - first.double()).abs() / (2 * (len(velocities) - 1))
    share = (moved / ulp.clamp_min(torch.finfo(torch.float64).tiny)).clamp(max=1.0)
    return bool(share.eq(1).any()) or float(torch.log1p(-share).sum()) < math.log(1e-6)
