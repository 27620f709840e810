"""Bounds on one change of the state, and on the coefficients that are recovered from it."""

import math
from dataclasses import dataclass, replace
from functools import reduce

import torch
from torch import Tensor

from fmcheck.record.memo import once
from fmcheck.record.reading import Evaluation, Move
from fmcheck.tolerance.codec import unscale_bound
from fmcheck.tolerance.times import argument_bound
from fmcheck.tolerance.units import coarser, unit_roundoff

__all__ = ["FitErrors", "fit_bound", "fit_errors", "move_bound", "short_bound", "sums_show_digits"]


# Two norms (or deviations) of the elements of a row, summed in trees of some ten levels each, their quotient, the share
# of it that is used, and the product.
_RESCALED = 32


def move_bound(move: Move, cond: float, uncond: float) -> Tensor:
    """Elementwise bound on `|end - (start + fraction (cond c + uncond u))|` of a correctly computed move.

    `cond = dt (1 + w)` and `uncond = -dt w`. The error is `fraction` times the larger coefficient times
    `_velocity_bound`, plus `_state_bound`.
    """
    size = max(abs(cond), abs(uncond))
    return torch.add(_state_bound(move), _velocity_bound(move), alpha=move.fraction * size)


@once
def _coarse(move: Move) -> float:
    """Unit roundoff of the shortest dtype that a move goes through.

    Not below float32, which a loop over a float64 network may hold its state, its grid or its weights in. The rounding
    of the float64 fit itself, `n` roundings for `n` elements, is far below that. The velocities' own dtype counts only
    where the change shows that they were combined in it.
    """
    velocities = () if _combined_in_float32(move) else tuple(part.velocity_dtype for part in move.parts)
    return unit_roundoff(coarser(torch.float32, move.start.dtype, move.end.dtype, *velocities))


@once
def _combined_in_float32(move: Move) -> bool:
    """Whether a change by velocities of a shorter dtype is a combination of them up to float32's rounding.

    A loop that casts them up first must be held to float32: the slack of bfloat16 would hide a step that is a tenth too
    long. One that combines them in their own dtype leaves its roundings, which are no multiple of any velocity.
    """
    if all(unit_roundoff(part.velocity_dtype) <= unit_roundoff(torch.float32) for part in move.parts):
        return False
    parts = tuple(replace(part, velocity_dtype=torch.float32) for part in move.parts)
    longer = replace(move, parts=parts)
    return longer.coefficients.determined and bool((longer.leftover <= fit_bound(longer)).all())


@once
def _velocity_bound(move: Move) -> Tensor:
    """Elementwise bound on the error of `dt v`, for coefficients `dt (1 + w)` and `-dt w` of size up to 1.

    `(1 + w) c - w u`, `c + w (c - u)` and `u + (1 + w) (c - u)` all keep within four roundings of `max(|1 + w|, |w|)
    (|c| + |u|)`: the weight, `1 + w` or `c - u`, a product, a sum. An average of two evaluations costs one more, `dt`
    rounded to the dtype and the product with it two: seven, of the mean of the absolute values, since the average
    itself may cancel. A rescaled prediction costs `_RESCALED` more. Underflow adds at most half the smallest number of
    the dtype an operation.
    """
    dtype = coarser(*(part.velocity_dtype for part in move.parts))
    ops = 7 + (_RESCALED if move.spec.rescales else 0)
    underflow = 7 * torch.finfo(dtype).smallest_normal * unit_roundoff(dtype)
    if len(move.parts) == 1 and move.spec.prediction in ("velocity", "reverse_velocity"):
        return move.sizes.mul_(ops * _coarse(move)).add_(underflow)
    shares = [_branch_bound(part, part.x_cond, part.v_cond, move) for part in move.parts]
    for part in move.parts:
        if part.x_uncond is not None and part.v_uncond is not None:
            shares.append(_branch_bound(part, part.x_uncond, part.v_uncond, move))
    total = reduce(torch.add, shares)
    return total * (ops / 7) / len(move.parts) + underflow


def _branch_bound(part: Evaluation, x: Tensor, v: Tensor, move: Move) -> Tensor:
    """The share of one branch in `_velocity_bound`: seven roundings of the velocity, or those of its conversion.

    With `r = 1 - s_min` and `a = 1 - r t`, an `x1` prediction `p = a v + r x` is combined (four roundings of `|p|`),
    `r x` is formed from a state that may have been cast for the network (three), subtracted (one of `a |v|`), divided
    by `a`, which is formed in four roundings of numbers up to 1, and then multiplied by dt: eleven of
    `(|v| + |r x|) / a` cover it. The loop's own time is that of the argument only to `argument_bound`, which `a`
    passes on as `r |v| / a`. An `x0` prediction, `v = (x - p) / t`, likewise, with `t` in the place of `a`.
    """
    size, coarse, spec = v.abs(), _coarse(move), move.spec
    if spec.prediction in ("velocity", "reverse_velocity"):
        return 7 * coarse * size
    time = part.time_rows[: len(x)].to(x.device).reshape(-1, *(1,) * (x.dim() - 1))
    ratio = 1 - spec.sigma_min
    share = (1 - ratio * time if spec.prediction == "x1" else time).abs()
    told = argument_bound(spec, part.time_dtype) + unit_roundoff(torch.float32)
    # A loop may write the step as an interpolation between state and prediction: three roundings of the state more.
    return (11 * coarse * (size + x.double().abs()) + told * size) / share


@once
def _state_bound(move: Move) -> Tensor:
    """Elementwise bound on the rounding of the state itself.

    One rounding of the sum, and one of each end where the state is cast for the network (or the autoencoder) and seen
    only then; and the way back where the end is recovered from a scaled latent. Predictions of an end may be stepped
    as `a' / a x + (1 - a' / a) x1`: three roundings of the start more. A loop may also keep the sum of its steps apart
    and add it to the state that it started at: the sum, no larger than both together, is rounded once more.
    """
    u = unit_roundoff(coarser(torch.float32, move.start.dtype, move.end.dtype))
    start, end = move.start.double().abs(), move.end.double().abs()
    if move.spec.prediction in ("x1", "x0"):
        start = 4 * start
    smallest = max(torch.finfo(tensor.dtype).smallest_normal for tensor in (move.start, move.end))
    bound = torch.add(start, end, alpha=3).add_(move.origin).add_(smallest).mul_(u)
    if move.unscaled_from is None:
        return bound
    return bound + unscale_bound(move.end.double(), move.spec, move.unscaled_from)


def sums_show_digits(start: Tensor, step: Tensor) -> bool:
    """Whether float32 sums `start + step` would have digits that a short dtype cannot hold.

    The sum of two numbers of 8 significant bits whose sizes differ by a factor of 4 or more needs at least two bits
    more, and is a number of 8 bits only when those are zero: one time in four. Beyond a factor of 2^12 float32 itself
    begins to lose the smaller one. Sixteen such elements agree by accident once in 2^32.
    """
    larger, smaller = torch.maximum(start.abs(), step.abs()), torch.minimum(start.abs(), step.abs())
    telling = (smaller * 4 <= larger) & (smaller * 2**12 >= larger) & (larger > 0)
    return int(telling.sum()) >= 16


def short_bound(move: Move, dtype: torch.dtype) -> Tensor:
    """Elementwise bound on a move computed in a short dtype, for diagnoses: one rounding of the state (two where both
    ends are rounded), and seven of the velocities as in `_branch_bound`."""
    of_state = 2 * torch.maximum(move.start.double().abs(), move.end.double().abs())
    return unit_roundoff(dtype) * (7 * move.fraction * _size(move) * move.sizes + of_state)


@once
def fit_bound(move: Move) -> Tensor:
    """Elementwise bound on what the fitted coefficients leave over of a correctly computed move.

    The exact coefficients leave at most `move_bound`; the fitted ones differ from them by at most `fit_errors`. And
    whatever the condition, a least-squares residual is no longer than the error vector, which is what remains where
    the two velocities are nearly parallel and their coefficients are anything.
    """
    errors = fit_errors(move)
    if not math.isfinite(errors.cond):
        size = abs(move.coefficients.dt) * max(abs(1 + move.weight), abs(move.weight))
        return torch.full_like(move.cond, _norm(move_bound(move, size, size)))
    elementwise = move_bound(move, *_sizes(move, errors)).add_(move.cond.abs(), alpha=move.fraction * errors.cond)
    if move.uncond is not None and not move.alike:
        elementwise.add_(move.uncond.abs(), alpha=move.fraction * errors.uncond)
    return elementwise.clamp_(max=_length(move))


@once
def _length(move: Move) -> float:
    """Euclidean norm of `move_bound` at the larger coefficient."""
    size = _size(move)
    return _norm(move_bound(move, size, size))


@dataclass(frozen=True)
class FitErrors:
    """Bounds on the errors of fitted coefficients: of `v_cond`, of `v_uncond`, and of their sum `dt`."""

    cond: float
    uncond: float
    dt: float

    def weight(self, dt: float, weight: float) -> float:
        """Bound on the error of `w = -uncond / dt`, by `w' - w = (-e_u - w (e_c + e_u)) / dt'`."""
        return (self.uncond + abs(weight) * self.dt) / abs(dt) if dt else math.inf


@once
def fit_errors(move: Move) -> FitErrors:
    """Bounds on the errors of the coefficients recovered from a move by least squares.

    A perturbation `e` of the right-hand side moves the coefficient of `c` by at most `|e| / (|c| s)`, that of `u` by
    `|e| / (|u| s)` and their sum by `|e| |c - u| / (|c| |u| s)`, where `s` is the sine of the angle between the
    columns: the norms of the rows of the pseudo-inverse, and of their sum. `|e|` depends on the coefficients that are
    sought; with `k` its growth by them, `|e| <= e(fitted) / (1 - k / (min(|c|, |u|) s))`. Infinite when the velocities
    do not determine the coefficients.
    """
    fitted, alone = move.coefficients, move.uncond is None or move.alike
    if not fitted.determined:
        return FitErrors(math.inf, math.inf, math.inf)
    cond = _norm(move.cond)
    uncond = cond if alone or move.uncond is None else _norm(move.uncond)
    sine = 1.0 if alone else fitted.condition
    weakest = min(cond, uncond) * sine
    growth = _norm(_velocity_bound(move))
    if not weakest > growth:
        return FitErrors(math.inf, math.inf, math.inf)
    error = _length(move) / move.fraction / (1 - growth / weakest)
    if alone or move.uncond is None:
        return FitErrors(error / cond, 0.0, error / cond)
    apart = _norm(move.cond - move.uncond)
    return FitErrors(error / (cond * sine), error / (uncond * sine), error * apart / (cond * uncond * sine))


def _norm(tensor: Tensor) -> float:
    """Euclidean norm."""
    return float(torch.linalg.vector_norm(tensor))


@once
def _size(move: Move) -> float:
    """The larger coefficient: fitted, or by the declared weight where equal velocities hide which one was used."""
    fitted = move.coefficients
    declared = abs(fitted.dt) * max(abs(1 + move.weight), abs(move.weight))
    return max(abs(fitted.cond), abs(fitted.uncond), declared)


def _sizes(move: Move, errors: FitErrors) -> tuple[float, float]:
    size = _size(move)
    return size + errors.cond, size + errors.uncond
