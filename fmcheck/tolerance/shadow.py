"""The declared loop over an exact field in float64, and how far a correct loop may end from it.

A running error analysis (Higham, section 3.3): with every step of the float64 integration a bound on the distance of
the user's state is carried along. Terms of the order of a squared roundoff are dropped.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from fmcheck.errors import NotInformative
from fmcheck.flow import combine
from fmcheck.flow.exact import ExactField
from fmcheck.record.reading import Reading
from fmcheck.tolerance.codec import unscale_bound
from fmcheck.tolerance.times import step_bound, time_bound, told_bound
from fmcheck.tolerance.units import coarser, unit_roundoff

__all__ = ["Shadow", "shadow"]


@dataclass(frozen=True)
class Shadow:
    """The end of the float64 integration, `[B, ...]`, and the elementwise bound on a correct loop's distance."""

    end: Tensor
    bound: Tensor


@dataclass(frozen=True)
class _Kind:
    """Unit roundoffs of a run: of what the network returns, of the update, of the state, and of the state as cast."""

    velocity: float
    update: float
    state: float
    cast: float


def shadow(field: ExactField, reading: Reading) -> Shadow:
    """Integrate a field as the spec of a reading declares, from the state that the user's loop started at.

    Let `E` bound the distance between the two states at the start of a step of length `dt`, `L` and `T` the slopes of
    the guided velocity in state and time, and `u` the unit roundoff of the loop's arithmetic. An evaluation is off by

        V = L max_row(E) + T tau + rho,

    with `tau` the error of the time that the network is told (`time_bound`) and `rho` the rounding of the velocities
    (`_rounding`). The step adds `dt V`, the error of its own length times the velocity (`step_bound`), and the
    rounding of the sum, of its two ends where they are seen cast, and of a sum that is kept apart:
    `u (3 |x'| + |x| + |x_start|)`. Stages of a second-order method are steps of the same kind. A state that is cast for
    the network is another one by a roundoff of the short dtype, at its start, in every evaluation and at its end. An
    end that is recovered from what the decoder is given is off by the rounding of scale and shift too
    (`unscale_bound`).

    Raises:
        NotInformative: the calls cannot be read as evaluations of the declared flow.
    """
    reading.require_formula()
    if reading.guided and reading.spec.rescales:
        raise NotInformative("the combined prediction is rescaled, by a factor that bends every known field")
    return _Integration(field, reading).run()


def end_bound(field: ExactField, reading: Reading, end: Tensor) -> Tensor:
    """Elementwise bound on the rounding of a loop's end on a field: `shadow`'s, or `sums_bound` for an `other` method.

    Raises:
        NotInformative: as `shadow`.
    """
    if reading.spec.solver == "other":
        return sums_bound(reading.case.num_steps, reading.start, end) + _recovery(end, reading)
    return shadow(field, reading).bound


def sums_bound(steps: int, start: Tensor, end: Tensor) -> Tensor:
    """Elementwise bound on the rounding of a method of which only its steps are known: those of its states in float32.

    A state is the sum of a few terms of the size of both ends; as in a step of a known method, three roundings of the
    one and one of the other. Multistep methods weigh up to three evaluations with coefficients whose sizes add up to
    less than eight times their sum on a grid of this kind.
    """
    return 8 * steps * unit_roundoff(torch.float32) * (3 * end.abs() + start.abs())


def _recovery(end: Tensor, reading: Reading) -> Tensor:
    source = reading.unscaled_from
    return torch.zeros_like(end) if source is None else unscale_bound(end, reading.spec, source)


class _Integration:
    def __init__(self, field: ExactField, reading: Reading) -> None:
        self.field, self.reading, self.spec = field, reading, reading.spec
        self.kind = _kind(reading)
        self.times = reading.evaluation_times
        self.tau = time_bound(reading, reading.argument_dtype)
        self.delta = step_bound(reading, torch.float32)
        self.origin = reading.start

    def run(self) -> Shadow:
        x, error = self.origin, self.kind.cast * self.origin.abs()
        steps = len(self.reading.steps_dt)
        saved = self.reading.saves_last_corrector
        for k in range(steps):
            x, error = self._step(k, x, error, "euler" if saved and k == steps - 1 else self.spec.solver)
        return Shadow(x, error + self.kind.cast * x.abs() + _recovery(x, self.reading))

    def _step(self, k: int, x: Tensor, error: Tensor, solver: str) -> tuple[Tensor, Tensor]:
        v, off = self._velocity(k, 0, x, error)
        if solver == "euler":
            return self._moved(k, x, error, v, off, 1.0)
        halfway = self._moved(k, x, error, v, off, 0.5 if solver == "midpoint" else 1.0)
        w, w_off = self._velocity(k, 1, *halfway)
        if solver == "midpoint":
            return self._moved(k, x, error, w, w_off, 1.0)
        return self._moved(k, x, error, (v + w) / 2, (off + w_off) / 2, 1.0)

    def _moved(
        self, k: int, x: Tensor, error: Tensor, v: Tensor, off: Tensor, fraction: float
    ) -> tuple[Tensor, Tensor]:
        dt = float(self.reading.steps_dt[k]) * fraction
        end = x + dt * v
        rounding = self.kind.state * (3 * end.abs() + x.abs() + self.origin.abs())
        return end, error + dt * off + fraction * float(self.delta[k]) * v.abs() + rounding

    def _velocity(self, k: int, stage: int, x: Tensor, error: Tensor) -> tuple[Tensor, Tensor]:
        """The guided velocity at a state, and the bound on its error."""
        t = self.times[k, stage]
        weight = self.reading.weight_at(float(t))
        branches = (False,) if weight == 0 else (False, True)
        flags = [torch.full((len(x),), uncond) for uncond in branches]
        v = [self.field.velocity(x, t, flag) for flag in flags]
        slopes = [self.field.slopes(x, t, flag) for flag in flags]
        shares = [abs(1 + weight), abs(weight)][: len(v)]
        # Both branches get one state and one time: where they are one field, guidance does not amplify those errors.
        told = [1.0] if self.field.same_for_both else shares
        by_state = sum((s * slope for s, (slope, _) in zip(told, slopes, strict=False)), torch.zeros_like(x))
        by_time = sum((s * slope for s, (_, slope) in zip(told, slopes, strict=False)), torch.zeros_like(x))
        worst = (error + self.kind.cast * x.abs()).flatten(1).amax(1).reshape(-1, *(1,) * (x.dim() - 1))
        rounding = sum((_rounding(part, x, t, self.reading, self.kind) for part in v), torch.zeros_like(x))
        off = by_state * worst + by_time * float(self.tau[k, stage]) + max(shares) * rounding
        return (combine(v[0], v[1], weight) if len(v) == 2 else v[0]), off


def _rounding(v: Tensor, x: Tensor, t: Tensor, reading: Reading, kind: _Kind) -> Tensor:
    """Rounding of one branch, for a guidance coefficient of size 1.

    The field's answer is rounded once to the network's dtype, and a velocity is combined, averaged and multiplied in
    seven roundings (see `tolerance.moves`). A prediction of an end is of the size of `|v| + |x|` and is divided by its
    share of the path, which the loop knows only as well as it knows its time.
    """
    spec = reading.spec
    if spec.prediction in ("velocity", "reverse_velocity"):
        return (kind.velocity + 7 * kind.update) * v.abs()
    share = (1 - (1 - spec.sigma_min) * t if spec.prediction == "x1" else t).abs()
    told = told_bound(spec, reading.argument_dtype) + unit_roundoff(torch.float32)
    return ((kind.velocity + 11 * kind.update) * (v.abs() + x.abs()) + told * v.abs()) / share


def _kind(reading: Reading) -> _Kind:
    """The roundoffs of a run: never finer than float32, which a loop may hold its state, grid and weights in."""
    evaluations, spec = reading.evaluations, reading.spec
    velocity = coarser(*(e.velocity_dtype for e in evaluations))
    seen = coarser(torch.float32, *(e.x_cond.dtype for e in evaluations))
    state = seen if spec.state_dtype == "network" else torch.float32
    return _Kind(
        velocity=unit_roundoff(velocity),
        update=unit_roundoff(coarser(torch.float32, velocity)),
        state=unit_roundoff(state),
        # A state that is seen as short as it is held was not rounded once more.
        cast=0.0 if seen == state else unit_roundoff(seen),
    )
