"""Odd step counts: grids and loops that are right for the numbers of steps that the standard plan takes."""

import torch

from fmcheck.mutants.loop import Loop, grid_of, logit_normal
from fmcheck.mutants.registry import mutant
from fmcheck.mutants.surgery import bind
from fmcheck.tiny import TinyFlowModel
from fmcheck.tiny.model import TimeGrid


@mutant("FM301", odd=True)
def grid_summed_up_to_one(model: TinyFlowModel) -> None:
    """Quantiles are summed up by 1 / K until they reach 1, which rounding puts off by a step for some K."""

    def time_grid(_: TinyFlowModel, num_steps: int, device: torch.device | str = "cpu") -> TimeGrid:
        quantiles = [0.0]
        while quantiles[-1] < 1:
            quantiles.append(min(quantiles[-1] + 1 / num_steps, 1.0))
        return TimeGrid(*(part.to(device) for part in grid_of(logit_normal(torch.tensor(quantiles)))))

    bind(model, "time_grid", time_grid)


@mutant("FM303", odd=True)
def quantiles_from_a_table(model: TinyFlowModel) -> None:
    """Quantiles are every `1200 // K`-th entry of a table of 1200, which are even only where K divides it."""
    table = torch.arange(1200, dtype=torch.float64) / 1200

    def time_grid(_: TinyFlowModel, num_steps: int, device: torch.device | str = "cpu") -> TimeGrid:
        picked = table[:: max(1, len(table) // num_steps)][:num_steps]
        quantiles = torch.cat([picked, torch.ones(1, dtype=torch.float64)]).float()
        return TimeGrid(*(part.to(device) for part in grid_of(logit_normal(quantiles))))

    bind(model, "time_grid", time_grid)


@mutant("FM301", odd=True)
def steps_run_in_blocks_of_ten(model: TinyFlowModel) -> None:
    """Long runs are made in `K // 10` blocks of ten steps, with a preview after each, and the rest is left out."""
    block = 10

    def whole_blocks(grid: TimeGrid) -> list[tuple[torch.Tensor, torch.Tensor]]:
        steps = list(zip(grid.t_mid, grid.dt, strict=True))
        return steps[: len(steps) // block * block] if len(steps) > block else steps

    Loop(steps=whole_blocks).install(model)
