"""Fields whose flow is known in closed form: the answer that a sampling loop must approach.

Times are scalars or `[B]`; every field is elementwise in `x`.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from fmcheck.errors import DeclarationError
from fmcheck.flow.path import RowTime, per_row

__all__ = ["GaussianFlow", "linear_field", "linear_solution", "logistic_field", "logistic_solution"]


def logistic_field(x: Float[Tensor, "B *rest"], t: RowTime) -> Float[Tensor, "B *rest"]:
    """`(2 + 3 t) x (1 - x)`: depends on `t` and nonlinearly on `x`, so that it separates solvers and stale times.

    Constant and straight-path fields do not: Euler integrates them exactly, whatever the grid.
    """
    return (2 + 3 * per_row(t, x)) * x * (1 - x)


def logistic_solution(x: Float[Tensor, "B *rest"], start: RowTime, end: RowTime) -> Float[Tensor, "B *rest"]:
    """The flow of `logistic_field` from `x` at `start` to `end`: `x / (x + (1 - x) exp(-P))`.

    `P` is the integral of `2 + 3 t`, that is `2 (end - start) + 3/2 (end^2 - start^2)`; the field adds `P` to
    `log(x / (1 - x))`. Holds for `x` in [0, 1]; outside, the solution can run to infinity in finite time.
    """
    a, b = per_row(start, x), per_row(end, x)
    phase = (b - a) * (2 + 1.5 * (a + b))
    return x / (x + (1 - x) * torch.exp(-phase))


def linear_field(x: Float[Tensor, "B *rest"], t: RowTime, rate: float) -> Float[Tensor, "B *rest"]:
    """`rate * x`; `t` is ignored."""
    return rate * x


def linear_solution(x: Float[Tensor, "B *rest"], start: RowTime, end: RowTime, rate: float) -> Float[Tensor, "B *rest"]:
    """The flow of `linear_field` from `start` to `end`: `x exp(rate (end - start))`."""
    return x * torch.exp(rate * (per_row(end, x) - per_row(start, x)))


@dataclass(frozen=True, kw_only=True)
class GaussianFlow:
    """Flow between independent Gaussians `x0 ~ N(mean0, std0^2)` and `x1 ~ N(mean1, std1^2)`, elementwise.

    On the path `x_t = a x0 + t x1`, `a = 1 - r t`, `r = 1 - sigma_min`, the state is Gaussian with mean
    `m_t = a mean0 + t mean1` and variance `s_t^2 = a^2 std0^2 + t^2 std1^2`. The marginal velocity that a perfectly
    trained network would return is `E[x1 - r x0 | x_t]` (arXiv 2210.02747, eq. 8), here by Gaussian conditioning.
    Unlike the velocity of one pair it depends on `t` and `x`, and its trajectories are curved.

    Raises:
        DeclarationError: a standard deviation is not above 0, or `sigma_min` is not in [0, 1).
    """

    mean0: float = 0.0
    std0: float = 1.0
    mean1: float = 0.0
    std1: float = 1.0
    sigma_min: float = 0.0

    def __post_init__(self) -> None:
        for name in ("std0", "std1"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise DeclarationError(f"GaussianFlow.{name}: expected a number above 0; found {value!r}")
        if not 0 <= self.sigma_min < 1:
            raise DeclarationError(f"GaussianFlow.sigma_min: expected a number in [0, 1); found {self.sigma_min!r}")

    def mean(self, t: Float[Tensor, "*T"]) -> Float[Tensor, "*T"]:
        """`m_t = (1 - r t) mean0 + t mean1`."""
        return self._share(t) * self.mean0 + t * self.mean1

    def std(self, t: Float[Tensor, "*T"]) -> Float[Tensor, "*T"]:
        """`s_t = sqrt((1 - r t)^2 std0^2 + t^2 std1^2)`, above 0 for every `t` in [0, 1]."""
        return torch.hypot(self._share(t) * self.std0, t * self.std1)

    def velocity(self, x: Float[Tensor, "B *rest"], t: RowTime) -> Float[Tensor, "B *rest"]:
        """`u(x, t) = mean1 - r mean0 + (t std1^2 - r (1 - r t) std0^2) / s_t^2 * (x - m_t)`.

        The fraction is `cov(x1 - r x0, x_t) / var(x_t)`, and also `s_t' / s_t`.
        """
        time, ratio = per_row(t, x), 1 - self.sigma_min
        covariance = time * self.std1**2 - ratio * self._share(time) * self.std0**2
        return self.mean1 - ratio * self.mean0 + covariance / self.std(time) ** 2 * (x - self.mean(time))

    def flow(self, x: Float[Tensor, "B *rest"], start: RowTime, end: RowTime) -> Float[Tensor, "B *rest"]:
        """The flow map from `start` to `end`: `m_end + s_end / s_start * (x - m_start)`."""
        a, b = per_row(start, x), per_row(end, x)
        return self.mean(b) + self.std(b) / self.std(a) * (x - self.mean(a))

    def _share(self, t: Tensor) -> Tensor:
        """`1 - r t`, the share of the source in the state."""
        return 1 - (1 - self.sigma_min) * t
