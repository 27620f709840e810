"""What a loop did as a whole on two constant velocities: the coefficients of both in the way from start to end."""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from fmcheck.errors import NotInformative
from fmcheck.flow import Coefficients, effective_coefficients
from fmcheck.oracles import CONSTANT
from fmcheck.plan import Run
from fmcheck.rules.evidence import given, require, require_finite
from fmcheck.tolerance import end_bound

__all__ = ["Effective", "end_of"]


def end_of(run: Run) -> Tensor:
    """The state that left the loop, float64 `[B, ...]` on the CPU.

    Raises:
        NotInformative: it cannot be seen in the shape of the initial state, or is not finite.
    """
    require(run.reading.unreadable is None, "the calls cannot be read as evaluations of the declared flow (see FM300)")
    end = given(run.reading.final, "the final state enters no observed function in its own shape (see FM601)")
    require_finite(end)
    return end.detach().cpu().double()


@dataclass(frozen=True)
class Effective:
    """A run on the constant field: `end - start = a v_cond + b v_uncond`, exactly, whatever the grid and the solver.

    Raises:
        NotInformative: on access, when the two velocities do not determine the coefficients.
    """

    run: Run

    @cached_property
    def _patterns(self) -> tuple[Tensor, Tensor]:
        start = self.run.reading.start
        t, rows = torch.zeros((), dtype=torch.float64), torch.zeros(len(start), dtype=torch.bool)
        return CONSTANT.velocity(start, t, rows), CONSTANT.velocity(start, t, ~rows)

    @cached_property
    def way(self) -> Tensor:
        """`end - start`, float64."""
        return end_of(self.run) - self.run.reading.start

    @cached_property
    def coefficients(self) -> Coefficients:
        """Least-squares `(a, b)`: their sum is the covered path, `-b / (a + b)` the guidance weight."""
        found = effective_coefficients(self.way, *self._patterns)
        if not found.determined:
            raise NotInformative("the constant velocities are parallel in a state of this shape")
        return found

    @cached_property
    def leftover(self) -> float:
        """Euclidean norm of what the two velocities do not explain of the way."""
        cond, uncond = self._patterns
        return float((self.way - self.coefficients.cond * cond - self.coefficients.uncond * uncond).norm())

    @cached_property
    def rounding(self) -> float:
        """Euclidean norm of the bound on the way of a correct loop; a least-squares residual is no longer than that."""
        return float(end_bound(CONSTANT, self.run.reading, end_of(self.run)).norm())

    @cached_property
    def path_error(self) -> float:
        """Bound on the error of `a + b` in a correct run.

        A perturbation `e` of the way moves the sum by at most `|e| |c - u| / (|c| |u| s)`, with `s` the sine of the
        angle between the velocities; `|e|` is at most the norm of the loop's own rounding bound.
        """
        cond, uncond = self._patterns
        return (
            self.rounding * float((cond - uncond).norm() / (cond.norm() * uncond.norm())) / self.coefficients.condition
        )

    @cached_property
    def uncond_error(self) -> float:
        """Bound on the error of `b`: `|e| / (|u| s)`."""
        return self.rounding / (float(self._patterns[1].norm()) * self.coefficients.condition)

    @cached_property
    def weight_error(self) -> float:
        """Bound on the error of `w = -b / (a + b)`: `(e_b + |w| e_path) / |a + b|`."""
        path = abs(self.coefficients.dt)
        return (self.uncond_error + abs(self.run.reading.weight) * self.path_error) / path if path else math.inf
