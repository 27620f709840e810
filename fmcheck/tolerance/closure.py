"""Bound on how far a sampler may end from the data end that its training asked for."""

import torch
from torch import Tensor

from fmcheck.record.reading import Reading
from fmcheck.tolerance.times import step_bound, told_bound
from fmcheck.tolerance.units import coarser, unit_roundoff

__all__ = ["closure_bound"]


def closure_bound(reading: Reading, x0: Tensor, x1: Tensor, law_error: float) -> Tensor:
    """Elementwise bound on `|end - expected|` of a correct loop over the velocity that training asks for.

    On a straight path from `x0` to `x1` the velocity is constant, so that every method and every grid is exact. What
    remains, with `S = |x0| + |x1|` the size of both ends:

    * the training law is read to `law_error`, relative to the ends, in each of its three parts: `3 law_error S`, once
      for the whole path since the steps sum to 1; a prediction of an end is divided by its share of the path, which at
      the last evaluation is no less than that of half the last step, and the division is repeated every step:
      `sum(dt / share)`;
    * every step rounds: the prediction to the network's dtype, once more in the guided sum of two equal branches
      (`|1 + w| + |w|` of them), the state, and the step's own length: `u (12 (1 + 2 |w|) dt / share + 4) S + delta S`;
    * the network is told its time to `told_bound`, which moves a law that depends on time by as much;
    * `v = (x - x0) / t` of an `x0` prediction spreads what is off already, by at most `prod(1 + dt / t)`.
    """
    spec, weight = reading.spec, abs(reading.weight)
    dtypes = [e.velocity_dtype for e in reading.evaluations] + [e.x_cond.dtype for e in reading.evaluations]
    unit = unit_roundoff(coarser(torch.float32, *dtypes))
    times, dt = reading.evaluation_times, reading.steps_dt
    if spec.prediction in ("velocity", "reverse_velocity"):
        share = torch.ones_like(times)
    else:
        remaining = (1 - (1 - spec.sigma_min) * times) if spec.prediction == "x1" else times
        share = remaining.clamp_min(float(dt.min()) / 2)
    spread = float((1 + dt / share[:, 0]).prod()) if spec.prediction == "x0" else 1.0
    passes = spread * float((dt[:, None] / share).sum(0).max())
    told = told_bound(spec, reading.argument_dtype)
    relative = passes * (3 * law_error + told + 12 * unit * (1 + 2 * weight)) + 4 * unit * (len(dt) + 1)
    return (relative + float(step_bound(reading, torch.float32).sum())) * (x0.abs() + x1.abs())
