"""The tiny subject's part of a rank, and a layer spread over ranks, with hooks for what people get wrong about them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from fmcheck.subject import Request, Subject
from fmcheck.subjects.tiny import tokenize
from fmcheck.tiny import TinyFlowModel

__all__ = ["Parts", "blocks", "in_turn", "seeded", "split_mlps", "summed"]


def in_turn(count: int, rank: int, ranks: int) -> list[int]:
    """Every `ranks`-th index."""
    return list(range(rank, count, ranks))


def blocks(count: int, rank: int, ranks: int) -> list[int]:
    """Neighbouring indices; the first parts are one longer where the ranks do not divide the number of prompts."""
    return [index for index in range(count) if index * ranks // count == rank]


def seeded(seed: int) -> torch.Generator:
    """A generator of its own."""
    return torch.Generator().manual_seed(seed)


def _by_index(request: Request, rank: int, ranks: int, indices: list[int]) -> list[torch.Generator]:
    return [seeded(request.case.seed + index) for index in indices]


@dataclass(frozen=True, kw_only=True)
class Parts:
    """A copy of the tiny subject's `generate_rank`; every hook defaults to what the clean one does.

    Attributes:
        indices: of the prompts of a rank, from their number, the rank and the number of ranks.
        generators: one for every index, from the request, the rank, the number of ranks and the indices.
        together: makes the whole part in one batch, with the first of the generators.
        finish: what is returned, from images, indices, the number of prompts and the rank.
    """

    indices: Callable[[int, int, int], list[int]] = in_turn
    generators: Callable[[Request, int, int, list[int]], list[torch.Generator]] = _by_index
    together: bool = False
    finish: Callable[[Tensor, list[int], int, int], tuple[Tensor, list[int]]] = lambda images, indices, *_: (
        images,
        indices,
    )

    def of(self, subject: Subject, name: str, **changes: Any) -> Subject:
        """The subject with these parts."""
        return subject.but(name=f"tiny with {name}", generate_rank=self.run, **changes)

    def run(self, model: TinyFlowModel, request: Request, rank: int, ranks: int) -> tuple[Tensor, list[int]]:
        """The `generate_rank` of a subject."""
        count = len(request.prompts)
        indices = self.indices(count, rank, ranks)
        batches = [indices] if self.together else [[index] for index in indices]
        generators = self.generators(request, rank, ranks, indices)
        made = [_made(model, request, b, g) for b, g in zip(batches, generators, strict=False)]
        return self.finish(torch.cat(made), indices, count, rank)


def _made(model: TinyFlowModel, request: Request, indices: list[int], generator: torch.Generator) -> Tensor:
    return model.generate(
        **tokenize(model, [request.prompts[index] for index in indices]),
        cfg_scale=request.guidance_scale,
        num_steps=request.num_steps,
        generator=generator,
        height=request.height,
        width=request.width,
    )


def summed(partial: Tensor) -> Tensor:
    """The sum of what the ranks have."""
    dist.all_reduce(partial)
    return partial


def split_mlps(model: TinyFlowModel, mesh: Any, reduce: Callable[[Tensor], Tensor]) -> None:
    """Spread the velocity network's MLPs: columns of the first layer, channels between, rows of the last one, whose
    sums are reduced.

    Args:
        reduce: makes the whole sum of a rank's partial one.
    """
    for block in model.fm_transformers.blocks:
        _split(block.mlp, mesh.get_rank(), mesh.size(), reduce)


def _split(mlp: Any, rank: int, ranks: int, reduce: Callable[[Tensor], Tensor]) -> None:
    for layer in (mlp.expand, mlp.mix):
        layer.weight = nn.Parameter(layer.weight.detach().chunk(ranks)[rank])
        layer.bias = nn.Parameter(layer.bias.detach().chunk(ranks)[rank])
    mlp.mix.groups = len(mlp.mix.weight)
    last = mlp.project
    last.weight = nn.Parameter(last.weight.detach().chunk(ranks, dim=1)[rank])
    last.forward = lambda x: reduce(F.linear(x, last.weight)) + last.bias
