"""What the user's own training code asks of the network, read from its losses, as a function of time and of both ends.

The loss is asked for its gradient at three constant outputs of the network: a squared error's gradient is
`k (output - target)`, element by element, so that the target follows from it whatever the weights `k` are. Losses with
other data ends and the same draws then split state and target into the part of the data end and the rest:

    x_t = b(t) x1 + n,    target = beta(t) x1 + rho(t) n,

and on a straight path `n = (1 - r t) x0` and `rho (1 - r t) = alpha`, the share of the source end in the target.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fmcheck.errors import NotInformative
from fmcheck.record.disturb import Disturbance, answer_instead
from fmcheck.record.training import TrainingReading
from fmcheck.record.training_pair import TrainingPair, other_data_ends

__all__ = ["LEVELS", "TrainingLaw", "level_of", "levels_and_ends", "training_law"]

# Constant outputs of the network; the third shows whether the loss is quadratic in them.
LEVELS = (0.0, 1.0, 0.5)
# Agreement that is asked of three gradients, and of rows with a law: half of float32's digits, since each is a quotient
# of differences of numbers of its own size.
_DIGITS = torch.finfo(torch.float32).eps ** 0.5
_DEGREE = 2


def level_of(level: float) -> Disturbance:
    """The network answers with one number everywhere, by which the loss can be differentiated."""

    def answer(_: Any, like: Tensor) -> Tensor:
        # In float32 whatever the network has, or the gradients would have its few digits.
        return torch.full_like(like, level, dtype=torch.float32).requires_grad_()

    return answer_instead(f"velocity {level:g} everywhere", "velocity", answer)


def levels_and_ends() -> dict[str, tuple[Disturbance, ...]]:
    """The disturbances of the losses that :func:`training_law` reads, by name."""
    levels = {f"{level:g}": (level_of(level),) for level in LEVELS}
    return {**levels, "moved": (level_of(LEVELS[0]), other_data_ends())}


@dataclass(frozen=True)
class TrainingLaw:
    """`target = alpha x0 + beta(t) x1` on the path `x_t = (1 - r t) x0 + b(t) x1`.

    Attributes:
        alpha, remains: share of the source end in the target, and `1 - r`, what is left of it in the state at `t = 1`;
            `remains` is None where the target does not show it (`alpha = 0`).
        beta, path: coefficients of the polynomials `beta(t)` and `b(t)`, lowest power first.
        error: largest deviation from the law on the whole path, relative to the ends.
        ends: the data ends of the conditional rows in the units of the state, `[N, D]`.
    """

    alpha: float
    remains: float | None
    beta: Tensor
    path: Tensor
    error: float
    ends: Tensor

    @property
    def leads_to_data(self) -> bool:
        """Whether the path holds none of the data end at `t = 0` and all of it at `t = 1`, as the network is told."""
        ends = _at(self.path, torch.tensor([0.0, 1.0], dtype=torch.float64))
        return bool((ends - torch.tensor([0.0, 1.0], dtype=torch.float64)).abs().max() < 0.5)

    def target(self, t: Tensor, x0: Tensor, x1: Tensor) -> Tensor:
        """What training asks for at the times `t` `[N]` of the path from `x0` to `x1`, both `[D]`; `[N, D]`."""
        return self.alpha * x0 + _at(self.beta, t)[:, None] * x1


def training_law(readings: Mapping[str, TrainingReading]) -> TrainingLaw:
    """The law behind the losses of :func:`levels_and_ends`.

    Raises:
        NotInformative: no gradient, a loss that is not quadratic in the output, other draws in each loss, a path or a
            target that is no polynomial in time.
    """
    plain, moved = readings[f"{LEVELS[0]:g}"], readings["moved"]
    pair = TrainingPair(plain, moved)
    slope = _slope(readings)
    rows = plain.conditional & pair.time.isfinite()
    if int(rows.sum()) < 2 * (_DEGREE + 1):
        raise NotInformative("too few conditional rows to read a law from")
    target, target_moved = -plain.gradient / slope, -moved.gradient / slope
    question = pair.questions[pair.unit]
    x1 = plain.ends[pair.unit].rows
    spread = _spread(plain.told[rows])
    beta = ((target_moved - target) * question).sum(1) / question.square().sum(1)
    rest, rest_target = plain.state - pair.time[:, None] * x1, target - beta[:, None] * x1
    rho = (rest_target * rest).sum(1) / rest.square().sum(1)
    error = (rest_target - rho[:, None] * rest).norm(dim=1) / (rest_target.norm(dim=1) + x1.norm(dim=1))
    t = plain.told
    beta_law, beta_error = _polynomial(t[rows], beta[rows])
    path_law, path_error = _polynomial(t[rows], pair.time[rows])
    alpha, remains, alpha_error = _source_share(t[rows], rho[rows])
    worst = spread * max(float(error[rows].max()), beta_error, path_error, alpha_error)
    # A hundredth separates a law that is read from one that is not; how far it is off goes into the bound.
    if not worst < 1e-2:
        raise NotInformative(
            f"the target is no linear function of both ends and a polynomial in time ({worst:.2g} off)"
        )
    return TrainingLaw(alpha, remains, beta_law, path_law, worst, x1[rows])


def _slope(readings: Mapping[str, TrainingReading]) -> Tensor:
    """`k` of the gradient `k (output - target)`, `[B, D]`."""
    zero, one, half = (readings[f"{level:g}"].gradient for level in LEVELS)
    slope = one - zero
    if not bool((slope > 0).all()):
        raise NotInformative(
            "the loss is no squared error of the network's output: it does not grow with the distance everywhere"
        )
    off = (half - (zero + one) / 2).abs() / slope
    if float(off.max()) > _DIGITS:
        raise NotInformative(
            "the loss is no squared error of the network's output, so its target cannot be read from gradients"
        )
    return slope


def _spread(t: Tensor) -> float:
    """By how much what a row is off may grow on the way from the rows' times to the whole of [0, 1].

    A fitted polynomial at `s` is `sum_i a_i(s) value_i`, which is off by at most `sum_i |a_i(s)|` times the largest
    error.

    Raises:
        NotInformative: the times are too few, or too close to each other, to tell polynomials apart.
    """
    powers = _powers(t)
    sizes = torch.linalg.svdvals(powers)
    if not float(sizes[-1]) > _DIGITS * float(sizes[0]):
        raise NotInformative("the training times take too few values to read a law from")
    whole = torch.linspace(0, 1, 11, dtype=torch.float64)
    return max(1.0, float((_powers(whole) @ torch.linalg.pinv(powers)).abs().sum(1).max()))


def _powers(t: Tensor) -> Tensor:
    return torch.stack([t**k for k in range(_DEGREE + 1)], 1)


def _polynomial(t: Tensor, values: Tensor) -> tuple[Tensor, float]:
    """Least-squares coefficients in `t`, lowest power first, and the largest deviation from them."""
    powers = _powers(t)
    found = torch.linalg.lstsq(powers, values[:, None], driver="gelsd").solution.flatten()
    return found, float((powers @ found - values).abs().max())


def _source_share(t: Tensor, rho: Tensor) -> tuple[float, float | None, float]:
    """`alpha`, `1 - r` and the deviation of `rho (1 - r t) = alpha`: `1 / rho` is affine in `t`, or `rho` is 0."""
    if float(rho.abs().max()) <= 1e-3:
        return 0.0, None, float(rho.abs().max())
    affine = torch.stack([torch.ones_like(t), t], 1)
    # Weighted by rho, so that the equation `(c0 + c1 t) rho = 1` is met and not its reciprocal.
    constant, slope = (
        torch.linalg.lstsq(affine * rho[:, None], torch.ones_like(rho)[:, None]).solution.flatten().tolist()
    )
    if abs(constant) <= 1e-3 * abs(slope):
        # The path does not start at the source at t = 0, so that its share cannot be said in terms of that end.
        return math.nan, None, float((slope * t * rho - 1).abs().max())
    off = float(((constant + slope * t) * rho - 1).abs().max())
    return 1 / constant, 1 + slope / constant, off


def _at(polynomial: Tensor, t: Tensor) -> Tensor:
    return sum((c * t**k for k, c in enumerate(polynomial)), torch.zeros_like(t))
