"""The direction in which a training loss pulls the network's outputs, against a target."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from fmcheck.record.training import DataEnd, TrainingReading
from fmcheck.spec import FlowSpec
from fmcheck.tolerance import implied_bound, path_bound, target_bound, told_bound

__all__ = ["Pull", "implied_source", "pulls"]


@dataclass(frozen=True, kw_only=True)
class Pull:
    """Gradient and ends of some rows, each `[n, D]`.

    `x0_error` bounds the error of an `x0` that was not observed; `end` says what `x1` is.
    """

    gradient: Tensor
    output: Tensor
    state: Tensor
    x0: Tensor
    x1: Tensor
    x0_error: Tensor
    dtype: torch.dtype
    end: str

    def against(self, target: Tensor) -> tuple[int, int]:
        """How many outputs are pulled away from the target, and of how many that can be told.

        An element without a gradient is not pulled anywhere, and the sign of an error within its bound is unknown.
        """
        error = self.output - target
        clear = error.abs() > target_bound(self.x0, self.x1, self.output, self.dtype) + self.x0_error
        clear &= self.gradient != 0
        wrong = clear & (self.gradient.sign() != error.sign())
        return int(wrong.sum()), int(clear.sum())

    def target(self, spec: FlowSpec) -> Tensor:
        """What the network should return by the spec."""
        velocity = self.x1 - (1 - spec.sigma_min) * self.x0
        known = {"velocity": velocity, "reverse_velocity": -velocity, "x1": self.x1, "x0": self.x0}
        return known[spec.prediction]

    def explain(self, spec: FlowSpec) -> str | None:
        """The known wrong target with which every sign is right."""
        keep = 1 - spec.sigma_min
        for target, text in (
            (self.x1 - keep * self.x0, "the velocity x1 - (1 - s_min) x0"),
            (self.x1 - self.x0, "x1 - x0, without sigma_min"),
            (self.x0 - self.x1, "x0 - x1: the target has the opposite sign"),
            (keep * self.x0 - self.x1, "(1 - s_min) x0 - x1: the target has the opposite sign"),
            (self.x1, "the data end x1"),
            (self.x0, "the source end x0"),
            (self.x1 + self.x0, "x1 + x0"),
            (self.x1 - self.state, "x1 - x_t"),
            (self.state, "the state x_t"),
            (torch.zeros_like(self.x1), "zero"),
        ):
            if self.against(target)[0] == 0:
                return f"the loss pulls the network towards {text}"
        return None


def pulls(reading: TrainingReading, on_path: Tensor | None) -> Iterator[Pull]:
    """The pull for every data end that the loss may have used.

    Args:
        on_path: numbers of the rows to judge with the observed source end; None solves `x0` from state, time and data
            end, for all conditional rows.
    """
    if on_path is not None:
        yield _pull(reading, on_path, reading.x0, reading.line.end.rows, None, reading.line.end.name)
        return
    remaining = 1 - (1 - reading.spec.sigma_min) * reading.told
    rows = (reading.conditional & (remaining > 0)).nonzero().flatten()
    for end in reading.ends:
        x0, error = implied_source(reading, end)
        yield _pull(reading, rows, x0, end.rows, error, end.name)


def implied_source(reading: TrainingReading, end: DataEnd) -> tuple[Tensor, Tensor]:
    """The source end that state, told time and a data end leave, and the bound on its error, each `[B, D]`."""
    spec, x0 = reading.spec, reading.implied_x0(end)
    remaining = 1 - (1 - spec.sigma_min) * reading.told.unsqueeze(1)
    state_error = path_bound(x0, end.rows, reading.dtype)
    time_error = told_bound(spec, reading.argument_dtype)
    velocity = end.rows - (1 - spec.sigma_min) * x0
    return x0, implied_bound(state_error, time_error, velocity, remaining)


def _pull(reading: TrainingReading, rows: Tensor, x0: Tensor, x1: Tensor, x0_error: Tensor | None, end: str) -> Pull:
    return Pull(
        gradient=reading.gradient[rows],
        output=reading.output[rows],
        state=reading.state[rows],
        x0=x0[rows],
        x1=x1[rows],
        x0_error=torch.zeros_like(x0[rows]) if x0_error is None else x0_error[rows],
        dtype=reading.dtype,
        end=end,
    )
