"""Correct pipelines on several ranks: other parts, other seeds, another way to spread the network."""

from functools import partial
from typing import Any

import torch

from fmcheck.mutants.ranked import Parts, blocks, seeded, split_mlps, summed
from fmcheck.mutants.registry import variation
from fmcheck.subject import Request, Subject
from fmcheck.tiny import TinyFlowModel

__all__ = ["split_attention"]


@variation(nproc=2)
def parts_in_blocks(subject: Subject) -> Subject:
    """The ranks make neighbouring prompts instead of every other one."""
    return Parts(indices=blocks).of(subject, "parts_in_blocks")


@variation(nproc=2)
def noise_by_rank_declared(subject: Subject) -> Subject:
    """Every rank makes its part in one batch, with one generator that is seeded by seed and rank."""

    def of_rank(request: Request, rank: int, ranks: int, indices: list[int]) -> list[torch.Generator]:
        return [seeded(request.case.seed * ranks + rank)]

    parts = Parts(indices=blocks, generators=of_rank, together=True)
    return parts.of(subject, "noise_by_rank_declared", rank_seeding="per_rank")


@variation(nproc=2)
def tensor_parallel(subject: Subject) -> Subject:
    """Attention and MLPs are spread over the ranks as distributed tensors, whose sums are reduced."""
    return subject.but(name="tiny with tensor_parallel", shard=split_attention)


@variation(nproc=2)
def mlps_summed_by_hand(subject: Subject) -> Subject:
    """The MLPs are spread over the ranks without distributed tensors, and their sums reduced."""
    shard = partial(split_mlps, reduce=summed)
    return subject.but(name="tiny with mlps_summed_by_hand", shard=shard)


def split_attention(model: TinyFlowModel, mesh: Any, *, heads: bool = True) -> None:
    """Columns of queries, keys, values and first MLP layers; rows of the layers behind them; fewer `heads` a rank."""
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

    columns = ("attention.query", "attention.key", "attention.value", "mlp.0")
    blocks: Any = model.fm_transformers.blocks
    for block in blocks:
        plan: dict[str, Any] = {name: ColwiseParallel() for name in columns}
        plan |= {name: RowwiseParallel() for name in ("attention.out", "mlp.2")}
        parallelize_module(block, mesh, plan)
        if heads:
            block.attention.heads //= mesh.size()
