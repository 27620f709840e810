"""The tiny model's sampling loop with a hook for each thing that people get wrong, so no mutant repeats the loop."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from fmcheck.flow import Field
from fmcheck.mutants.surgery import bind
from fmcheck.tiny import TinyFlowModel
from fmcheck.tiny.model import TimeGrid

__all__ = ["Halves", "Loop", "Step", "grid_of", "logit_normal", "use_edges", "use_solver"]


class Step(NamedTuple):
    """One step as the loop made it: state before and after `[B, C, h, w]`, scalar time and length, used velocity."""

    start: Tensor
    time: Tensor
    dt: Tensor
    velocity: Tensor
    end: Tensor


def _as_planned(grid: TimeGrid) -> Iterable[tuple[Tensor, Tensor]]:
    return zip(grid.t_mid, grid.dt, strict=True)


@dataclass(frozen=True, kw_only=True)
class Loop:
    """A copy of `TinyFlowModel.integrate`; every hook defaults to what the clean loop does.

    Attributes:
        steps: `(time, dt)` of the steps, from the grid.
        start: the state before the first step, from the one that `integrate` is given.
        guided: whether a guidance scale asks for the unconditional branch.
        velocity: from the combined velocity and the steps so far to the one that is used.
        update: the new state from state, `dt` and velocity.
        finish: what `integrate` returns, from the last state and all steps.
    """

    steps: Callable[[TimeGrid], Iterable[tuple[Tensor, Tensor]]] = _as_planned
    start: Callable[[Tensor], Tensor] = lambda x: x
    guided: Callable[[float], bool] = lambda scale: scale != 0
    velocity: Callable[[Tensor, list[Step]], Tensor] = lambda v, _: v
    update: Callable[[Tensor, Tensor, Tensor], Tensor] = lambda x, dt, v: x + dt * v
    finish: Callable[[Tensor, list[Step]], Tensor] = lambda x, _: x

    def install(self, model: TinyFlowModel) -> None:
        """Make this the loop of one model."""
        bind(model, "integrate", lambda found, x, grid, scale: self.run(found, x, grid, scale))

    def run(self, model: TinyFlowModel, x: Tensor, grid: TimeGrid, scale: float) -> Tensor:
        """The integrated state, through the model's own `velocities` and `combine`."""
        x = self.start(x.to(torch.float32))
        made: list[Step] = []
        for t, dt in self.steps(grid):
            cond, uncond = model.velocities(x, t, guided=self.guided(scale))
            v = cond.to(torch.float32) if uncond is None else model.combine(cond, uncond, scale)
            v = self.velocity(v, made)
            end = self.update(x, dt, v)
            made.append(Step(x, t, dt, v, end))
            x = end
        return self.finish(x, made)


def _second_half(rows: int, batch: int, device: torch.device) -> Tensor:
    return torch.arange(rows, device=device) >= batch


@dataclass(frozen=True, kw_only=True)
class Halves:
    """A copy of `TinyFlowModel.velocities`; every hook defaults to what the clean model does.

    Attributes:
        states: `[2B, ...]` from the state, when guided.
        alone: the rows for the network from the state, when not guided.
        times: the time argument from the clean one, `[rows]`, and the batch size.
        null: the null indicator from the clean one, `[rows]`, and the batch size.
        split: `(v_cond, v_uncond)` from all velocities and the batch size, when guided.
        merged: the velocity from that of the rows, when not guided.
    """

    states: Callable[[Tensor], Tensor] = lambda x: torch.cat([x, x])
    alone: Callable[[Tensor], Tensor] = lambda x: x
    times: Callable[[Tensor, int], Tensor] = lambda times, _: times
    null: Callable[[Tensor, int], Tensor] = lambda null, _: null
    split: Callable[[Tensor, int], tuple[Tensor, Tensor | None]] = lambda v, batch: (v[:batch], v[batch:])
    merged: Callable[[Tensor], Tensor] = lambda v: v

    def install(self, model: TinyFlowModel) -> None:
        """Make this the evaluation of one model."""
        bind(model, "velocities", lambda found, x, t, guided: self.run(found, x, t, guided))

    def run(self, model: TinyFlowModel, x: Tensor, t: Tensor, guided: bool) -> tuple[Tensor, Tensor | None]:
        """Conditional and, if guided, unconditional velocity."""
        batch = x.shape[0]
        rows_x = self.states(x) if guided else self.alone(x)
        rows = rows_x.shape[0]
        times = self.times(model.log_snr(t).reshape(1).repeat(rows), batch)
        null = self.null(_second_half(rows, batch, x.device), batch)
        v = model.fm_transformers(rows_x, times, null)
        return self.split(v, batch) if guided else (self.merged(v), None)


def logit_normal(q: Tensor, mean: float = 0.0, std: float = 1.0) -> Tensor:
    """Quantiles of the logit-normal distribution, in the dtype of `q`."""
    return torch.sigmoid(mean + std * torch.special.ndtri(q))


def grid_of(edges: Tensor) -> TimeGrid:
    """The grid with these edges, evaluated at the midpoints."""
    return TimeGrid(edges, (edges[:-1] + edges[1:]) / 2, edges.diff())


def use_edges(model: TinyFlowModel, edges: Callable[[Tensor], Tensor]) -> None:
    """Replace the time grid by one whose edges are `edges(linspace(0, 1, K + 1))`."""

    def time_grid(_: TinyFlowModel, num_steps: int, device: torch.device | str = "cpu") -> TimeGrid:
        return TimeGrid(*(part.to(device) for part in grid_of(edges(torch.linspace(0.0, 1.0, num_steps + 1)))))

    bind(model, "time_grid", time_grid)


def use_solver(model: TinyFlowModel, step: Callable[[Field, Tensor, Tensor, Tensor], Tensor]) -> None:
    """Replace the loop by `x = step(field, x, start, end)` over the edges of the grid; the field is the guided one."""

    def integrate(_: TinyFlowModel, x: Tensor, grid: TimeGrid, scale: float) -> Tensor:
        def field(x: Tensor, t: Tensor) -> Tensor:
            cond, uncond = model.velocities(x, t, guided=scale != 0)
            return cond.float() if uncond is None else model.combine(cond, uncond, scale)

        for start, end in pairwise(grid.t_edges):
            x = step(field, x, start, end)
        return x

    bind(model, "integrate", integrate)
