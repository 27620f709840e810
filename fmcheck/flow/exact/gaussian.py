"""Flows between Gaussians: the marginal velocity of Gaussian data, and the straight map between the two."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fmcheck.errors import DeclarationError
from fmcheck.flow.exact.field import ExactField
from fmcheck.flow.path import RowTime, per_row

__all__ = ["Gaussian", "Transport"]


@dataclass(frozen=True, kw_only=True)
class Gaussian(ExactField):
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
    separates: ClassVar[str] = (
        "grid, evaluation times, solver, steps; what straight paths are blind to; blind to guidance, the same for both"
    )

    def __post_init__(self) -> None:
        for name in ("std0", "std1"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise DeclarationError(f"Gaussian.{name}: expected a number above 0; found {value!r}")
        if not 0 <= self.sigma_min < 1:
            raise DeclarationError(f"Gaussian.sigma_min: expected a number in [0, 1); found {self.sigma_min!r}")

    def mean(self, t: Float[Tensor, "*T"]) -> Float[Tensor, "*T"]:
        """`m_t = (1 - r t) mean0 + t mean1`."""
        return self._share(t) * self.mean0 + t * self.mean1

    def std(self, t: Float[Tensor, "*T"]) -> Float[Tensor, "*T"]:
        """`s_t = sqrt((1 - r t)^2 std0^2 + t^2 std1^2)`, above 0 for every `t` in [0, 1]."""
        return torch.hypot(self._share(t) * self.std0, t * self.std1)

    @property
    def drift(self) -> float:
        """`m_t' = mean1 - r mean0`."""
        return self.mean1 - (1 - self.sigma_min) * self.mean0

    def rate(self, t: Float[Tensor, "*T"]) -> Float[Tensor, "*T"]:
        """`g = s_t' / s_t = (t std1^2 - r (1 - r t) std0^2) / s_t^2`, the slope of the velocity in the state."""
        return (t * self.std1**2 - (1 - self.sigma_min) * self._share(t) * self.std0**2) / self.std(t) ** 2

    def rate_change(self, t: Float[Tensor, "*T"]) -> Float[Tensor, "*T"]:
        """`g' = (std1^2 + r^2 std0^2) / s_t^2 - 2 g^2`."""
        return (self.std1**2 + ((1 - self.sigma_min) * self.std0) ** 2) / self.std(t) ** 2 - 2 * self.rate(t) ** 2

    def velocity(
        self, x: Float[Tensor, "N *rest"], t: RowTime, uncond: Bool[Tensor, "N"] | None = None
    ) -> Float[Tensor, "N *rest"]:
        """`u(x, t) = mean1 - r mean0 + (t std1^2 - r (1 - r t) std0^2) / s_t^2 * (x - m_t)`.

        The fraction is `cov(x1 - r x0, x_t) / var(x_t)`, and also `s_t' / s_t`.
        """
        time = per_row(t, x)
        return self.drift + self.rate(time) * (x - self.mean(time))

    def flow(
        self, x: Float[Tensor, "B *rest"], start: RowTime, end: RowTime, weight: float = 0.0
    ) -> Float[Tensor, "B *rest"]:
        """The flow map from `start` to `end`: `m_end + s_end / s_start * (x - m_start)`."""
        a, b = per_row(start, x), per_row(end, x)
        return self.mean(b) + self.std(b) / self.std(a) * (x - self.mean(a))

    def slopes(
        self, x: Float[Tensor, "N *rest"], t: RowTime, uncond: Bool[Tensor, "N"]
    ) -> tuple[Float[Tensor, "N *rest"], Float[Tensor, "N *rest"]]:
        """`|g|` and `|g' (x - m_t) - g m_t'|`."""
        time = per_row(t, x)
        by_time = self.rate_change(time) * (x - self.mean(time)) - self.rate(time) * self.drift
        return self.rate(time).abs().expand_as(x), by_time.abs()

    def _share(self, t: Tensor) -> Tensor:
        """`1 - r t`, the share of the source in the state."""
        return 1 - (1 - self.sigma_min) * t


@dataclass(frozen=True, kw_only=True)
class Transport(ExactField):
    """The optimal-transport (and rectified) flow between two Gaussians: every point moves straight to its image.

    With `T(x0) = shift + scale x0`, the monotone map of one onto the other, `x_t = (1 - t) x0 + t T(x0)` and
    `v = T(x0) - x0`, where `x0 = (x - t shift) / (1 + (scale - 1) t)` is found from the state. Source: straight flows
    of rectified couplings, arXiv 2209.03003, section 2.

    Raises:
        DeclarationError: the scale is not above 0, so that the map is not monotone.
    """

    scale: float = 0.5
    shift: float = 0.7
    separates: ClassVar[str] = (
        "times that do not belong to the state (a midpoint's time at an edge's state, stale times); "
        "blind to the grid of loops that evaluate the left edge, since its paths are straight"
    )

    def __post_init__(self) -> None:
        if not (math.isfinite(self.scale) and self.scale > 0):
            raise DeclarationError(f"Transport.scale: expected a number above 0; found {self.scale!r}")

    def _source(self, x: Tensor, t: Tensor) -> Tensor:
        return (x - t * self.shift) / (1 + (self.scale - 1) * t)

    def velocity(self, x: Float[Tensor, "N *rest"], t: RowTime, uncond: Bool[Tensor, "N"]) -> Float[Tensor, "N *rest"]:
        """`shift + (scale - 1) x0`."""
        return self.shift + (self.scale - 1) * self._source(x, per_row(t, x))

    def flow(
        self, x: Float[Tensor, "B *rest"], start: RowTime, end: RowTime, weight: float = 0.0
    ) -> Float[Tensor, "B *rest"]:
        """`x0 + end (T(x0) - x0)`."""
        source = self._source(x, per_row(start, x))
        return source + per_row(end, x) * (self.shift + (self.scale - 1) * source)

    def slopes(
        self, x: Float[Tensor, "N *rest"], t: RowTime, uncond: Bool[Tensor, "N"]
    ) -> tuple[Float[Tensor, "N *rest"], Float[Tensor, "N *rest"]]:
        """`|r|` and `|r v|` with `r = (scale - 1) / (1 + (scale - 1) t)`: along a path the velocity does not change."""
        rate = (self.scale - 1) / (1 + (self.scale - 1) * per_row(t, x))
        return rate.abs().expand_as(x), (rate * self.velocity(x, t, uncond)).abs()
