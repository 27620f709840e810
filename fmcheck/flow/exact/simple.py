"""Fields that are linear in the state or do not depend on it, and a nonlinear one that is defined everywhere."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fmcheck.flow.exact.field import ExactField, branch, guided, pattern
from fmcheck.flow.path import RowTime, per_row

__all__ = ["Constant", "Linear", "Polynomial", "Rotation", "Sine"]


@dataclass(frozen=True)
class Constant(ExactField):
    """Two constant velocities of size `size`, one a branch, with patterns that are far from parallel.

    Every method on every grid is exact on it, so that the way from start to end shows nothing but the guidance
    coefficients and the covered part of the path.
    """

    size: float = 1.0
    separates: ClassVar[str] = (
        "guidance formula, branches, steps that are dropped, added or scaled; blind to grid, solver and times"
    )
    same_for_both: ClassVar[bool] = False

    def _both(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.size * pattern(x, 1.0, 1.7), self.size * pattern(x, 0.3, 2.9)

    def velocity(self, x: Float[Tensor, "N *rest"], t: RowTime, uncond: Bool[Tensor, "N"]) -> Float[Tensor, "N *rest"]:
        """The pattern of the row's branch."""
        return branch(uncond, x, *self._both(x)) + torch.zeros_like(x)

    def flow(
        self, x: Float[Tensor, "B *rest"], start: RowTime, end: RowTime, weight: float = 0.0
    ) -> Float[Tensor, "B *rest"]:
        """`x + (end - start) ((1 + w) c - w u)`."""
        cond, uncond = self._both(x)
        return x + per_row(end - start, x) * ((1 + weight) * cond - weight * uncond)

    def slopes(
        self, x: Float[Tensor, "N *rest"], t: RowTime, uncond: Bool[Tensor, "N"]
    ) -> tuple[Float[Tensor, "N *rest"], Float[Tensor, "N *rest"]]:
        """None by state, and none by time."""
        return torch.zeros_like(x), torch.zeros_like(x)


@dataclass(frozen=True)
class Polynomial(ExactField):
    """`sum_j a_j t^j` times a pattern, with coefficients of each branch: a quadrature, without the state."""

    cond: tuple[float, ...] = (1.0, -2.0, 3.0)
    uncond: tuple[float, ...] = (0.5, 1.0, -1.0)
    separates: ClassVar[str] = (
        "evaluation times, step lengths, guidance formula; blind to what the state does in a step"
    )
    same_for_both: ClassVar[bool] = False

    def velocity(self, x: Float[Tensor, "N *rest"], t: RowTime, uncond: Bool[Tensor, "N"]) -> Float[Tensor, "N *rest"]:
        """The polynomial of the row's branch at its time, times the pattern."""
        return self._at(x, t, uncond, self.cond, self.uncond)

    def flow(
        self, x: Float[Tensor, "B *rest"], start: RowTime, end: RowTime, weight: float = 0.0
    ) -> Float[Tensor, "B *rest"]:
        """`x` plus the integral: `sum_j a_j (end^(j + 1) - start^(j + 1)) / (j + 1)`, times the pattern."""
        a, b = per_row(start, x), per_row(end, x)
        coefficients = [guided(c, u, weight) for c, u in zip(self.cond, self.uncond, strict=True)]
        integral = sum((k * (b ** (j + 1) - a ** (j + 1)) / (j + 1) for j, k in enumerate(coefficients)), 0 * a)
        return x + integral * pattern(x, 0.7, 2.3)

    def slopes(
        self, x: Float[Tensor, "N *rest"], t: RowTime, uncond: Bool[Tensor, "N"]
    ) -> tuple[Float[Tensor, "N *rest"], Float[Tensor, "N *rest"]]:
        """None by state, and the derivatives of the polynomials by time."""
        cond, uncond_ = (tuple(j * a for j, a in enumerate(c))[1:] for c in (self.cond, self.uncond))
        return torch.zeros_like(x), self._at(x, t, uncond, cond, uncond_).abs()

    def _at(self, x: Tensor, t: RowTime, flags: Tensor, cond: tuple[float, ...], uncond: tuple[float, ...]) -> Tensor:
        """`sum_j a_j t^j` with the coefficients of each row's branch, times the pattern."""
        time = per_row(t, x)
        values = [sum((a * time**j for j, a in enumerate(c)), torch.zeros_like(time)) for c in (cond, uncond)]
        return branch(flags, x, *values) * pattern(x, 0.7, 2.3) + torch.zeros_like(x)


@dataclass(frozen=True)
class Linear(ExactField):
    """`rate x`, with a rate of each branch that varies from channel to channel (axis 1)."""

    cond: float = -0.4
    uncond: float = 0.2
    separates: ClassVar[str] = (
        "solver and number of steps, guidance formula, channels that are exchanged; blind to evaluation times"
    )
    same_for_both: ClassVar[bool] = False

    def _share(self, x: Tensor) -> Tensor:
        """`1 + sin(channel) / 2` along axis 1."""
        channels = torch.arange(x.shape[1], dtype=x.dtype, device=x.device)
        return (1 + torch.sin(channels) / 2).reshape(-1, *(1,) * (x.dim() - 2))

    def velocity(self, x: Float[Tensor, "N *rest"], t: RowTime, uncond: Bool[Tensor, "N"]) -> Float[Tensor, "N *rest"]:
        """The state times the rate of its row's branch and its channel."""
        return self._rates(x, uncond) * x

    def flow(
        self, x: Float[Tensor, "B *rest"], start: RowTime, end: RowTime, weight: float = 0.0
    ) -> Float[Tensor, "B *rest"]:
        """`x exp(rate (end - start))` with the guided rate."""
        return x * torch.exp(guided(self.cond, self.uncond, weight) * per_row(end - start, x) * self._share(x))

    def slopes(
        self, x: Float[Tensor, "N *rest"], t: RowTime, uncond: Bool[Tensor, "N"]
    ) -> tuple[Float[Tensor, "N *rest"], Float[Tensor, "N *rest"]]:
        """The size of the rate, and none by time."""
        return self._rates(x, uncond).abs().expand_as(x), torch.zeros_like(x)

    def _rates(self, x: Tensor, uncond: Tensor) -> Tensor:
        rates = (torch.tensor(rate, dtype=x.dtype, device=x.device) for rate in (self.cond, self.uncond))
        return branch(uncond, x, *rates) * self._share(x)


@dataclass(frozen=True)
class Rotation(ExactField):
    """Pairs of channels (axis 1) turn into each other at `rate`; a single channel turns pairs along the last axis.

    Of an odd number the last one stands still.
    """

    rate: float = 1.5
    separates: ClassVar[str] = (
        "channels that are exchanged, transposed or left out, solver and number of steps; blind to guidance and times"
    )

    def _axis(self, x: Tensor) -> int:
        return 1 if x.shape[1] > 1 else x.dim() - 1

    def _pairs(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """First and second of every pair, and what has no partner, along the axis."""
        axis = self._axis(x)
        whole = x.shape[axis] // 2 * 2
        paired = x.narrow(axis, 0, whole).reshape(*x.shape[:axis], whole // 2, 2, *x.shape[axis + 1 :])
        first, second = paired.unbind(axis + 1)
        return first, second, x.narrow(axis, whole, x.shape[axis] - whole)

    def _joined(self, first: Tensor, second: Tensor, rest: Tensor, axis: int) -> Tensor:
        return torch.cat([torch.stack([first, second], axis + 1).flatten(axis, axis + 1), rest], axis)

    def velocity(self, x: Float[Tensor, "N *rest"], t: RowTime, uncond: Bool[Tensor, "N"]) -> Float[Tensor, "N *rest"]:
        """`(-rate b, rate a)` of every pair `(a, b)`."""
        first, second, rest = self._pairs(x)
        return self._joined(-self.rate * second, self.rate * first, torch.zeros_like(rest), self._axis(x))

    def flow(
        self, x: Float[Tensor, "B *rest"], start: RowTime, end: RowTime, weight: float = 0.0
    ) -> Float[Tensor, "B *rest"]:
        """Every pair turned by `rate (end - start)`."""
        angle = self.rate * per_row(end - start, x)
        first, second, rest = self._pairs(x)
        turned = (
            torch.cos(angle) * first - torch.sin(angle) * second,
            torch.sin(angle) * first + torch.cos(angle) * second,
        )
        return self._joined(*turned, rest, self._axis(x))

    def slopes(
        self, x: Float[Tensor, "N *rest"], t: RowTime, uncond: Bool[Tensor, "N"]
    ) -> tuple[Float[Tensor, "N *rest"], Float[Tensor, "N *rest"]]:
        """One derivative of size `rate` in every row of the Jacobian, and none by time."""
        return torch.full_like(x, abs(self.rate)), torch.zeros_like(x)


@dataclass(frozen=True)
class Sine(ExactField):
    """`(a + b t) sin(x)`: nonlinear in the state and in time, and defined for every state.

    Between two multiples of pi the state runs from one to the other and never leaves.
    """

    a: float = 1.0
    b: float = 2.0
    separates: ClassVar[str] = (
        "solver, its stages, grid, evaluation times, precision of the state; blind to guidance, the same for both"
    )

    def velocity(self, x: Float[Tensor, "N *rest"], t: RowTime, uncond: Bool[Tensor, "N"]) -> Float[Tensor, "N *rest"]:
        """`(a + b t) sin(x)`."""
        return (self.a + self.b * per_row(t, x)) * torch.sin(x)

    def flow(
        self, x: Float[Tensor, "B *rest"], start: RowTime, end: RowTime, weight: float = 0.0
    ) -> Float[Tensor, "B *rest"]:
        """`2 atan(tan(x / 2) exp(P))` on the branch of `x`, with `P` the integral of `a + b t`.

        By the half angle with sine and cosine, since its tangent runs to infinity at odd multiples of pi.
        """
        low, high = per_row(start, x), per_row(end, x)
        growth = torch.exp((high - low) * (self.a + self.b * (high + low) / 2))
        turns = 2 * math.pi * torch.round(x / (2 * math.pi))
        half = (x - turns) / 2
        return turns + 2 * torch.atan2(torch.sin(half) * growth, torch.cos(half))

    def slopes(
        self, x: Float[Tensor, "N *rest"], t: RowTime, uncond: Bool[Tensor, "N"]
    ) -> tuple[Float[Tensor, "N *rest"], Float[Tensor, "N *rest"]]:
        """`|(a + b t) cos(x)|` and `|b sin(x)|`."""
        rate = self.a + self.b * per_row(t, x)
        return (rate * torch.cos(x)).abs(), (self.b * torch.sin(x)).abs()
