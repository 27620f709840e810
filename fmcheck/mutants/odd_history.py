"""Odd histories: what one call leaves for the next, where the two share what the standard plan's calls do not."""

import math
from typing import Any

import torch
from torch import Tensor

from fmcheck.mutants.loop import Loop
from fmcheck.mutants.registry import mutant
from fmcheck.mutants.surgery import wrap
from fmcheck.tiny import TinyFlowModel
from fmcheck.tiny.layers import sinusoids


@mutant("FM717", odd=True)
def positions_cached_by_both_sides(model: TinyFlowModel) -> None:
    """Positions are cached by the set of both sides, which a size and the turned one share."""
    kept: dict[frozenset[int], torch.Size] = {}

    def around(forward: Any, x: Tensor, *given: Any) -> Tensor:
        # Tokens are rows of cells, so the positions of another shape are those of the same tokens folded otherwise.
        shape = kept.setdefault(frozenset(x.shape[-2:]), x.shape[-2:])
        return forward(x.reshape(*x.shape[:2], *shape), *given).reshape(x.shape)  # type: ignore[no-any-return]

    wrap(model.fm_transformers, "forward", around)


@mutant("FM717", odd=True)
def resizing_cached_by_area(model: TinyFlowModel) -> None:
    """The weights that resize the text latent are cached by the number of cells, which two shapes share."""
    kept: dict[int, tuple[int, int]] = {}

    def resized(initial: Any, z: Tensor, height: int, width: int) -> Tensor:
        channels, h, w = model.latent_shape(height, width)
        if z.shape[1] == channels * h * w:
            return initial(z, height, width)  # type: ignore[no-any-return]
        known = kept.setdefault(h * w, (height, width))
        return initial(z, *known).reshape(-1, channels, h, w)  # type: ignore[no-any-return]

    wrap(model, "initial_state", resized)


def _columns(width: int, cell: float, channels: int, extent: int) -> Tensor:
    """The column part of `grid_positions` for cells of a given width, `[width, channels]`."""
    return sinusoids((torch.arange(width) + 0.5) * cell, channels, math.pi / extent, math.pi / 2)


@mutant("FM717", odd=True)
def cell_width_cached_by_rows(model: TinyFlowModel) -> None:
    """The width of a cell is cached by the number of rows, so another width with as many rows gets the first one's."""
    network = model.fm_transformers
    half, extent = network.width // 2, network.extent
    kept: dict[int, int] = {}
    now: dict[str, Tensor] = {}

    def around(forward: Any, x: Tensor, *given: Any) -> Any:
        height, width = x.shape[-2:]
        first = kept.setdefault(height, width)
        moved = _columns(width, extent / first, half, extent) - _columns(width, extent / width, half, extent)
        now["shift"] = torch.nn.functional.pad(moved, (half, 0)).repeat(height, 1).to(x.device)
        return forward(x, *given)

    wrap(network, "forward", around)
    wrap(network.embed, "forward", lambda embed, cells: embed(cells) + now["shift"].to(cells.dtype))


@mutant("FM717", odd=True)
def guidance_decided_by_the_first_call(model: TinyFlowModel) -> None:
    """Whether the batch is doubled is compiled in by the first call, so after an unguided one nothing is guided."""
    compiled: dict[str, bool] = {}
    Loop(guided=lambda scale: compiled.setdefault("guided", scale != 0)).install(model)


@mutant("FM717", odd=True)
def text_length_set_by_the_first_call(model: TinyFlowModel) -> None:
    """The longest prompt of the first call sets the length of the text, to which later prompts are cut."""
    made: dict[str, int] = {}

    def cut(forward: Any, ids: Tensor, mask: Tensor, *rest: Any) -> Any:
        length = made.setdefault("length", int(mask.sum(dim=1).max()))
        return forward(ids, mask.bool() & (torch.arange(mask.shape[1], device=mask.device) < length), *rest)

    wrap(model.text_encoder, "forward", cut)
