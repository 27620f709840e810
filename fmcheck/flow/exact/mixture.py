"""The marginal flow from a Gaussian to a mixture of Gaussians, elementwise."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fmcheck.errors import DeclarationError
from fmcheck.flow.exact.field import ExactField
from fmcheck.flow.exact.gaussian import Gaussian
from fmcheck.flow.path import RowTime, per_row

__all__ = ["Mixture"]

# Halvings of a bracket until float64 has no number in it.
_HALVINGS = 80


@dataclass(frozen=True, kw_only=True)
class Mixture(ExactField):
    """Data from `sum_i w_i N(mean_i, std^2)`, source `N(mean0, std0^2)`, independent, elementwise.

    Given the component the state is Gaussian, so the marginal velocity is the mean of the components' velocities under
    their posterior (arXiv 2210.02747, eq. 8). A flow in one dimension keeps the order of its points, so it carries
    every quantile of the marginal at `start` to the same quantile of the one at `end`.

    Raises:
        DeclarationError: numbers of means and weights differ, or a weight is not above 0.
    """

    means: tuple[float, ...] = (-0.7, 0.9)
    weights: tuple[float, ...] = (0.4, 0.6)
    std: float = 0.6
    mean0: float = 0.0
    std0: float = 1.0
    sigma_min: float = 0.0
    separates: ClassVar[str] = (
        "as the Gaussian field, and methods that are exact for linear fields; blind to guidance, the same for both"
    )

    def __post_init__(self) -> None:
        if len(self.means) != len(self.weights) or not all(weight > 0 for weight in self.weights):
            raise DeclarationError(
                f"Mixture: expected one weight above 0 a mean; found means {self.means!r} and weights {self.weights!r}"
            )

    @property
    def components(self) -> tuple[Gaussian, ...]:
        """The flow to each component alone."""
        known = {"mean0": self.mean0, "std0": self.std0, "std1": self.std, "sigma_min": self.sigma_min}
        return tuple(Gaussian(mean1=mean, **known) for mean in self.means)

    def _log_weights(self, x: Tensor) -> Tensor:
        weights = torch.tensor(self.weights, dtype=x.dtype, device=x.device)
        return (weights / weights.sum()).log().reshape(-1, *(1,) * x.dim())

    def _standardised(self, x: Tensor, t: Tensor) -> Tensor:
        """`(x - mean_i(t)) / std_i(t)`, one slice a component."""
        return torch.stack([(x - part.mean(t)) / part.std(t) for part in self.components])

    def velocity(self, x: Float[Tensor, "N *rest"], t: RowTime, uncond: Bool[Tensor, "N"]) -> Float[Tensor, "N *rest"]:
        """`sum_i p(i | x) u_i(x, t)`; the components have one width, so their densities differ in the exponent only."""
        velocities = torch.stack([part.velocity(x, t) for part in self.components])
        return (self._posterior(x, per_row(t, x)) * velocities).sum(0)

    def _posterior(self, x: Tensor, t: Tensor) -> Tensor:
        """`p(i | x)`, one slice a component."""
        return torch.softmax(self._log_weights(x) - self._standardised(x, t).square() / 2, 0)

    def flow(
        self, x: Float[Tensor, "B *rest"], start: RowTime, end: RowTime, weight: float = 0.0
    ) -> Float[Tensor, "B *rest"]:
        """The `y` with `F_end(y) = F_start(x)`, by bisection between the images under the components' own flows.

        Of distribution function and its complement the smaller is compared, by its logarithm, so that tails keep their
        digits.
        """
        a, b = per_row(start, x), per_row(end, x)
        below, above = self._tails(x, a)
        lower = below < above
        images = torch.stack([part.flow(x, start, end) for part in self.components])
        low, high = images.amin(0), images.amax(0)
        for _ in range(_HALVINGS):
            middle = low + (high - low) / 2
            under, over = self._tails(middle, b)
            short = torch.where(lower, under < below, over > above)
            low, high = torch.where(short, middle, low), torch.where(short, high, middle)
        return low + (high - low) / 2

    def slopes(
        self, x: Float[Tensor, "N *rest"], t: RowTime, uncond: Bool[Tensor, "N"]
    ) -> tuple[Float[Tensor, "N *rest"], Float[Tensor, "N *rest"]]:
        """The mean slope of the components, and the covariance of their velocity with the change of their log density.

        `v = E u` under a posterior that itself changes by `dp_i = p_i (l_i - E l)`, with `l` the derivative of the log
        density `-z^2 / 2 - log s` by state or time.
        """
        time, parts = per_row(t, x), self.components
        p, z, std = self._posterior(x, time), self._standardised(x, time), parts[0].std(time)
        g, change = parts[0].rate(time), parts[0].rate_change(time)
        drifts = x.new_tensor([part.drift for part in parts]).reshape(-1, *(1,) * x.dim())
        velocities = drifts + g * std * z
        away = velocities - (p * velocities).sum(0)
        by_state = g + (p * -z / std * away).sum(0)
        by_time = (p * (change * std * z - g * drifts + z * (drifts / std + g * z) * away)).sum(0)
        return by_state.abs(), by_time.abs()

    def _tails(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Logarithms of the probabilities below and above `x`."""
        z, weights = self._standardised(x, t), self._log_weights(x)
        return (
            torch.logsumexp(weights + torch.special.log_ndtr(z), 0),
            torch.logsumexp(weights + torch.special.log_ndtr(-z), 0),
        )
