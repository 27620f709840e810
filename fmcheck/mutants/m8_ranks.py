"""FM84: ranks that lose prompts, repeat noise or change pictures, and networks that are spread over them wrongly."""

import itertools
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from fmcheck.mutants.ranked import Parts, blocks, seeded, split_mlps, summed
from fmcheck.mutants.registry import subject_mutant
from fmcheck.mutants.variations_ranks import split_attention
from fmcheck.subject import Request, Subject
from fmcheck.tiny import TinyFlowModel

# FM841 ranks-miss-prompts


@subject_mutant("FM841", nproc=2)
def prompts_padded_by_repetition(subject: Subject) -> Subject:
    """The list of prompts is repeated from its start until the ranks divide it, as DistributedSampler does."""

    def padded(count: int, rank: int, ranks: int) -> list[int]:
        whole = -(-count // ranks) * ranks
        return list(itertools.islice(itertools.cycle(range(count)), rank, whole, ranks))

    return Parts(indices=padded).of(subject, "prompts_padded_by_repetition")


@subject_mutant("FM841", nproc=2)
def remainder_of_the_prompts_dropped(subject: Subject) -> Subject:
    """Every rank makes `N // world_size` prompts, and nobody makes the rest."""

    def equal(count: int, rank: int, ranks: int) -> list[int]:
        size = count // ranks
        return list(range(rank * size, (rank + 1) * size))

    return Parts(indices=equal).of(subject, "remainder_of_the_prompts_dropped")


@subject_mutant("FM841", nproc=2)
def every_rank_makes_everything(subject: Subject) -> Subject:
    """The prompts are not divided at all."""
    return Parts(indices=lambda count, *_: list(range(count))).of(subject, "every_rank_makes_everything")


# FM842 ranks-share-noise


@subject_mutant("FM842", nproc=2)
def every_rank_uses_one_seed(subject: Subject) -> Subject:
    """Every rank draws its samples in turn from the request's generator."""

    def one(request: Request, rank: int, ranks: int, indices: list[int]) -> list[torch.Generator]:
        return [request.generator] * len(indices)

    return Parts(generators=one).of(subject, "every_rank_uses_one_seed")


@subject_mutant("FM842", nproc=2)
def ranks_draw_from_the_process_generator(subject: Subject) -> Subject:
    """Noise comes from torch's own generator, which nobody seeds."""

    def default(request: Request, rank: int, ranks: int, indices: list[int]) -> list[torch.Generator]:
        return [torch.default_generator] * len(indices)

    return Parts(generators=default).of(subject, "ranks_draw_from_the_process_generator", rank_seeding="per_rank")


@subject_mutant("FM842", nproc=2)
def seeds_of_neighbouring_ranks_overlap(subject: Subject) -> Subject:
    """A sample's seed is rank plus place, so that the second sample of one rank is the first of the next."""

    def overlapping(request: Request, rank: int, ranks: int, indices: list[int]) -> list[torch.Generator]:
        return [seeded(request.case.seed + rank + place) for place in range(len(indices))]

    parts = Parts(generators=overlapping)
    return parts.of(subject, "seeds_of_neighbouring_ranks_overlap", rank_seeding="per_rank")


# FM844 ranks-change-pictures


@subject_mutant("FM844", nproc=2)
def parts_gathered_rank_by_rank(subject: Subject) -> Subject:
    """Prompts are dealt out in turn, and the pictures gathered one rank after the other."""

    def gather(images: Tensor, indices: list[int], count: int, rank: int) -> tuple[Tensor, list[int]]:
        parts: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(parts, images)
        return (torch.cat(parts), list(range(count))) if rank == 0 else (images[:0], [])

    return Parts(finish=gather).of(subject, "parts_gathered_rank_by_rank")


@subject_mutant("FM844", nproc=2)
def seeds_count_within_the_part(subject: Subject) -> Subject:
    """A sample's seed is its place in the part of its rank, a thousand apart between ranks."""

    def placed(request: Request, rank: int, ranks: int, indices: list[int]) -> list[torch.Generator]:
        return [seeded(request.case.seed + 1000 * rank + place) for place in range(len(indices))]

    return Parts(generators=placed).of(subject, "seeds_count_within_the_part")


@subject_mutant("FM844", nproc=2)
def pictures_scaled_by_the_part(subject: Subject) -> Subject:
    """The pictures of a part are divided by the largest value in it."""

    def scale(images: Tensor, indices: list[int], count: int, rank: int) -> tuple[Tensor, list[int]]:
        return images / images.abs().max(), indices

    return Parts(indices=blocks, finish=scale).of(subject, "pictures_scaled_by_the_part")


# FM845 ranks-not-repeatable


@subject_mutant("FM845", nproc=2)
def ranks_seeded_by_the_system(subject: Subject) -> Subject:
    """Every sample's generator takes its seed from the operating system, and `per_rank` is declared."""

    def random(request: Request, rank: int, ranks: int, indices: list[int]) -> list[torch.Generator]:
        generators = [torch.Generator() for _ in indices]
        for generator in generators:
            generator.seed()
        return generators

    return Parts(generators=random).of(subject, "ranks_seeded_by_the_system", rank_seeding="per_rank")


# FM843 sharding-changes-velocity


def _sharded(subject: Subject, name: str, shard: Any) -> Subject:
    return subject.but(name=f"tiny with {name}", shard=shard)


@subject_mutant("FM843", nproc=2)
def partial_sums_not_reduced(subject: Subject) -> Subject:
    """Every rank goes on with its own part of the sum in the MLPs."""
    return _sharded(subject, "partial_sums_not_reduced", lambda model, mesh: split_mlps(model, mesh, lambda part: part))


@subject_mutant("FM843", nproc=2)
def partial_sums_averaged(subject: Subject) -> Subject:
    """The parts of the sums in the MLPs are averaged over the ranks."""

    def shard(model: TinyFlowModel, mesh: Any) -> None:
        split_mlps(model, mesh, lambda part: summed(part) / mesh.size())

    return _sharded(subject, "partial_sums_averaged", shard)


@subject_mutant("FM843", nproc=2)
def heads_not_divided(subject: Subject) -> Subject:
    """Attention is spread over the ranks and keeps its number of heads, which become narrower instead of fewer."""
    return _sharded(subject, "heads_not_divided", lambda model, mesh: split_attention(model, mesh, heads=False))


@subject_mutant("FM843", nproc=2)
def other_weights_on_later_ranks(subject: Subject) -> Subject:
    """The last layer of the velocity network is a hundredth larger on every further rank."""

    @torch.no_grad()
    def shard(model: TinyFlowModel, mesh: Any) -> None:
        model.fm_transformers.out.weight.mul_(1 + 0.01 * mesh.get_rank())

    return _sharded(subject, "other_weights_on_later_ranks", shard)


@subject_mutant("FM843", nproc=2)
def weights_gathered_in_bfloat16(subject: Subject) -> Subject:
    """The sharding casts the weights of the velocity network to bfloat16 and its velocities back."""

    def shard(model: TinyFlowModel, mesh: Any) -> None:
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

        policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, output_dtype=torch.float32)
        fully_shard(model.fm_transformers, mesh=mesh, mp_policy=policy)

    return _sharded(subject, "weights_gathered_in_bfloat16", shard)


@subject_mutant("FM843", nproc=2)
def ranks_add_noise_of_their_own(subject: Subject) -> Subject:
    """After sharding, the initial state holds noise from the process's own generator."""

    def shard(model: TinyFlowModel, mesh: Any) -> None:
        initial = model.initial_state
        model.initial_state = lambda *given: initial(*given) + 0.1 * torch.randn(())  # type: ignore[method-assign]

    return _sharded(subject, "ranks_add_noise_of_their_own", shard)
