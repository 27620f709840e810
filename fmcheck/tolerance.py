"""Error budgets: every bound that a rule compares with, derived here and nowhere else.

Notation (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., section 3.1): `u` is the unit roundoff of a
dtype, half its eps; `gamma(n) = n u / (1 - n u)` bounds the relative error of `n` roundings in a row.
"""

import math
from dataclasses import dataclass
from functools import lru_cache, reduce
from itertools import accumulate

import torch
from torch import Tensor

from fmcheck.flow import edge_error_bound as derived_edge_bound
from fmcheck.record.memo import once
from fmcheck.record.reading import Evaluation, Move, Reading
from fmcheck.spec import FlowSpec

__all__ = [
    "EXPLAINED",
    "FitErrors",
    "argument_bound",
    "binomial_range",
    "block_shows",
    "coarser",
    "exchange_shows",
    "fit_bound",
    "fit_errors",
    "gamma",
    "half_digits",
    "image_bound",
    "implied_bound",
    "ks_critical",
    "move_bound",
    "path_bound",
    "range_bound",
    "scale_bound",
    "short_bound",
    "step_bound",
    "sums_show_digits",
    "target_bound",
    "time_bound",
    "told_bound",
    "unit_roundoff",
    "unscale_bound",
]

# Chance of a false alarm that one run of all statistical rules together may have; each takes an equal share.
FALSE_ALARM_BUDGET = 1e-6
# FM902 (ks_critical) and FM905 (binomial_range, exchange_shows, ks_critical, block_shows): the tests that are
# made, one share each.
STATISTICAL_RULES = 5


# The bound depends on the grid alone, and every rule about time asks for it.
edge_error_bound = lru_cache(maxsize=256)(derived_edge_bound)


def unit_roundoff(dtype: torch.dtype) -> float:
    """`u = eps / 2` of a floating dtype."""
    return torch.finfo(dtype).eps / 2


def coarser(*dtypes: torch.dtype) -> torch.dtype:
    """The dtype with the largest unit roundoff: what passes through several is as good as the shortest."""
    return max(dtypes, key=unit_roundoff)


def gamma(n: int, dtype: torch.dtype) -> float:
    """Bound on the relative error of `n` consecutive roundings."""
    u = unit_roundoff(dtype)
    return n * u / (1 - n * u)


def half_digits(dtype: torch.dtype) -> float:
    """`sqrt(eps)`: relative agreement between two runs whose kernels may round differently.

    Two correct runs differ by a few eps an operation, which the flow amplifies by its condition number. Asking for
    half of the digits accepts condition numbers up to `1 / sqrt(eps)` (2,900 in float32); a defect that exchanges or
    mixes rows is of order one.
    """
    return math.sqrt(torch.finfo(dtype).eps)


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
    of the float64 fit itself, `n` roundings for `n` elements, is far below that.
    """
    velocities = (part.velocity_dtype for part in move.parts)
    return unit_roundoff(coarser(torch.float32, move.start.dtype, move.end.dtype, *velocities))


@once
def _velocity_bound(move: Move) -> Tensor:
    """Elementwise bound on the error of `dt v`, for coefficients `dt (1 + w)` and `-dt w` of size up to 1.

    `(1 + w) c - w u`, `c + w (c - u)` and `u + (1 + w) (c - u)` all keep within four roundings of
    `max(|1 + w|, |w|) (|c| + |u|)`: the weight, `1 + w` or `c - u`, a product, a sum. An average of two evaluations
    costs one more, `dt` rounded to the dtype and the product with it two: seven, of the mean of the absolute values,
    since the average itself may cancel. Underflow adds at most half the smallest number of the dtype an operation.
    """
    dtype = coarser(*(part.velocity_dtype for part in move.parts))
    underflow = 7 * torch.finfo(dtype).smallest_normal * unit_roundoff(dtype)
    if len(move.parts) == 1 and move.spec.prediction in ("velocity", "reverse_velocity"):
        return move.sizes.mul_(7 * _coarse(move)).add_(underflow)
    shares = [_branch_bound(part, part.x_cond, part.v_cond, move) for part in move.parts]
    for part in move.parts:
        if part.x_uncond is not None and part.v_uncond is not None:
            shares.append(_branch_bound(part, part.x_uncond, part.v_uncond, move))
    total = reduce(torch.add, shares)
    return total / len(move.parts) + underflow


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
    as `a' / a x + (1 - a' / a) x1`: three roundings of the start more.
    """
    u = unit_roundoff(coarser(torch.float32, move.start.dtype, move.end.dtype))
    start, end = move.start.double().abs(), move.end.double().abs()
    if move.spec.prediction in ("x1", "x0"):
        start = 4 * start
    smallest = max(torch.finfo(tensor.dtype).smallest_normal for tensor in (move.start, move.end))
    bound = torch.add(start, end, alpha=2).add_(smallest).mul_(u)
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


def scale_bound(latent: Tensor, spec: FlowSpec, dtype: torch.dtype = torch.float32) -> Tensor:
    """Elementwise bound on a latent computed as `state / scale + shift`.

    Scale and shift rounded to the dtype, one division (or a product with a rounded reciprocal: two more roundings) and
    one sum, each relative to `|latent| + |shift|`, and one more where the sum is cast to the dtype.
    """
    return gamma(6, dtype) * (latent.abs() + abs(spec.latent_shift))


def unscale_bound(state: Tensor, spec: FlowSpec, dtype: torch.dtype = torch.float32) -> Tensor:
    """Elementwise bound on a state recovered from `state / scale + shift`: `scale_bound`, times the scale."""
    return abs(spec.latent_scale) * scale_bound(state / spec.latent_scale + spec.latent_shift, spec, dtype)


def image_bound(image: Tensor, spec: FlowSpec, dtype: torch.dtype) -> Tensor:
    """Elementwise bound on an affine map between two image ranges: four roundings of values up to the range's ends."""
    reach: float = max(abs(end) for end in (*spec.image_range, *(spec.decode_range or (0.0,))))
    return gamma(4, dtype) * (image.abs() + reach)


def ks_critical(samples: int) -> float:
    """Kolmogorov-Smirnov distance that `samples` draws of the right law exceed with the rule's share of the budget.

    Massart's form of the Dvoretzky-Kiefer-Wolfowitz inequality: `P(D > d) <= 2 exp(-2 n d^2)`, exact for every n.
    """
    return math.sqrt(math.log(2 * STATISTICAL_RULES / FALSE_ALARM_BUDGET) / (2 * samples))


# Agreement that a diagnosis asks for before it names a known mistake. No verdict depends on it: it only separates
# candidate explanations, which differ from each other by percents, from one another.
EXPLAINED = 1e-3


def binomial_range(samples: int, probability: float) -> tuple[int, int]:
    """Counts that `samples` independent rows of a probability may have, each tail at half of the rule's share.

    The exact binomial tails, summed from logarithms: the smallest `k` with `P(X <= k)` and the largest with
    `P(X >= k)` above the share. (The same test as whether the Clopper-Pearson interval of `k` holds the probability.)
    """
    share = FALSE_ALARM_BUDGET / STATISTICAL_RULES / 2
    masses = [_binomial_mass(k, samples, probability) for k in range(samples + 1)]
    low = next(k for k, below in enumerate(accumulate(masses)) if below > share)
    high = samples - next(k for k, above in enumerate(accumulate(reversed(masses))) if above > share)
    return low, high


def _binomial_mass(k: int, n: int, p: float) -> float:
    if p in (0, 1):
        return float(k == n * p)
    ways = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    return math.exp(ways + k * math.log(p) + (n - k) * math.log1p(-p))


def exchange_shows(rows: int) -> bool:
    """Whether a random permutation leaves all of `rows` in their places with less than a rule's share: `1 / rows!`."""
    return math.lgamma(rows + 1) > math.log(STATISTICAL_RULES / FALSE_ALARM_BUDGET)


def block_shows(rows: int, marked: int) -> bool:
    """Whether `marked` of `rows` independent flags are neighbours with less than a rule's share of the budget.

    All choices of as many rows are equally likely, and `rows - marked + 1` of them are one block.
    """
    return math.comb(rows, marked) > (rows - marked + 1) * STATISTICAL_RULES / FALSE_ALARM_BUDGET


def path_bound(x0: Tensor, x1: Tensor, dtype: torch.dtype) -> Tensor:
    """Elementwise bound on the error of a training state `x_t = (1 - (1 - s) t) x0 + t x1` computed in `dtype`.

    As it stands: `1 - s`, its product with `t`, the difference from 1 (absolute, of numbers up to 1) and the product
    with `x0` are four roundings of `|x0|`; `t x1` is one of `|x1|`, the sum one of both. As `x0 + t (x1 - (1 - s) x0)`
    it is five of `|x0|` and three of `|x1|`. Add one of both when `t` itself is rounded to the dtype, one when the
    state is handed on in it, and two of `|x1|` where the latent scale and shift are applied outside the encoder.
    """
    return gamma(7, dtype) * (x0.abs() + x1.abs())


def target_bound(x0: Tensor, x1: Tensor, output: Tensor, dtype: torch.dtype) -> Tensor:
    """Elementwise bound on the error of `output - (x1 - (1 - s) x0)` computed in `dtype`.

    Scale and shift of `x1`, or `1 - s` and its product with `x0`: two roundings; the difference one; the cast of
    target and output to a common dtype one each. The last difference keeps its sign whatever it is rounded to.
    """
    return gamma(4, dtype) * (x0.abs() + x1.abs() + output.abs())


def told_bound(spec: FlowSpec, dtype: torch.dtype) -> float:
    """`argument_bound`, or one unit of an integer time argument, which may be rounded or cut off."""
    if dtype.is_floating_point:
        return argument_bound(spec, dtype)
    return 1 / abs(spec.time_map[1])


def implied_bound(state_error: Tensor, time_error: float, velocity: Tensor, remaining: Tensor) -> Tensor:
    """Elementwise bound on `x0 = (x_t - t x1) / a` with `a = 1 - (1 - s) t`, from the errors of `x_t` and `t`.

    `d x0 / d x_t = 1 / a` and `d x0 / d t = -v / a`, with `v = x1 - (1 - s) x0`.
    """
    bound: Tensor = (state_error + time_error * velocity.abs()) / remaining.abs()
    return bound


def range_bound(low: float, high: float, dtype: torch.dtype) -> float:
    """Bound on how far a correctly made picture leaves its range `[low, high]`.

    The last step is at most an affine map of a number that is exactly within its own limits (clamped, or out of tanh
    or a sigmoid): its slope and offset are rounded once each, then their product and sum, four roundings of numbers
    no larger than the ends of the range or its width.
    """
    return gamma(4, dtype) * max(abs(low), abs(high), high - low)
