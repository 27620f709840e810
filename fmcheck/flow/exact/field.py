"""What an exact field is: a velocity that needs only what a network gets, and whose flow is known."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fmcheck.flow.path import RowTime, per_row

__all__ = ["ExactField", "branch", "guided", "pattern"]


@dataclass(frozen=True)
class ExactField(ABC):
    """A velocity field with a known flow, to be put in a network's place.

    Fields are defined for states of any rank `[N, ...]` and any real numbers, and depend on nothing but the state, the
    time, and whether a row is unconditional.

    Attributes:
        separates: which faults of a sampling loop the field tells apart, and which it is blind to.
        same_for_both: whether conditional and unconditional velocity are equal, so that guidance changes nothing.
    """

    separates: ClassVar[str]
    same_for_both: ClassVar[bool] = True

    @property
    def name(self) -> str:
        """Identifies a run: the kind of field, and the parameters that are not its defaults."""
        values = ((field, getattr(self, field.name)) for field in fields(self))
        changed = [f"{field.name}={value}".replace(" ", "") for field, value in values if value != field.default]
        return "-".join([type(self).__name__.lower(), *changed])

    @abstractmethod
    def velocity(self, x: Float[Tensor, "N *rest"], t: RowTime, uncond: Bool[Tensor, "N"]) -> Float[Tensor, "N *rest"]:
        """`dx/dt` of every row, of its unconditional branch where `uncond` is True, in the dtype of `x`."""

    @abstractmethod
    def flow(
        self, x: Float[Tensor, "B *rest"], start: RowTime, end: RowTime, weight: float = 0.0
    ) -> Float[Tensor, "B *rest"]:
        """The exact solution at `end` of `x' = (1 + w) v_cond - w v_uncond` from `x` at `start`."""

    @abstractmethod
    def slopes(
        self, x: Float[Tensor, "N *rest"], t: RowTime, uncond: Bool[Tensor, "N"]
    ) -> tuple[Float[Tensor, "N *rest"], Float[Tensor, "N *rest"]]:
        """`sum_j |dv_i / dx_j|` and `|dv_i / dt|`, elementwise, for a running error analysis."""


def pattern(x: Float[Tensor, "N *rest"], phase: float, frequency: float) -> Float[Tensor, "*rest"]:
    """`sqrt(2) sin(phase + frequency i)` over the elements `i` of a row: fixed, of size about 1, without symmetries."""
    numbers = torch.arange(x[0].numel(), dtype=x.dtype, device=x.device)
    return (2**0.5 * torch.sin(phase + frequency * numbers)).reshape(x.shape[1:])


def branch(uncond: Bool[Tensor, "N"], x: Tensor, of_cond: Tensor, of_uncond: Tensor) -> Tensor:
    """`of_uncond` in the unconditional rows and `of_cond` in the others, for values that broadcast to the rows."""
    flags = per_row(uncond.to(x.dtype), x).bool()
    return torch.where(flags, of_uncond, of_cond)


def guided(cond: float, uncond: float, weight: float) -> float:
    """`(1 + w) cond - w uncond`."""
    return (1 + weight) * cond - weight * uncond
