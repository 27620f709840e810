"""Bounds on what is read of time: edges, step sizes, and times behind an argument."""

from functools import lru_cache

import torch
from torch import Tensor

from fmcheck.flow import edge_error_bound as derived_edge_bound
from fmcheck.record.reading import Reading
from fmcheck.spec import FlowSpec
from fmcheck.tolerance.units import unit_roundoff

__all__ = ["argument_bound", "step_bound", "time_bound", "told_bound"]

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
