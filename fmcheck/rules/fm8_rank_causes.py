"""Known mistakes of pipelines on several ranks, and which of them reproduces what was found."""

import torch
from torch import Tensor

from fmcheck.plan import Run
from fmcheck.ranks.share import Share
from fmcheck.rules.fm8_rank_runs import Places, pictures
from fmcheck.tolerance import EXPLAINED

__all__ = ["explain_noise", "explain_picture", "explain_places", "explain_share"]

# Of the distance between two pictures: closer, and it is the same picture with a fault.
_NEAR = 0.1
_GLOBAL = ("torch", "python", "numpy", "cuda")


def explain_places(run: Run, places: Places) -> str | None:
    """Why prompts are missing or made twice."""
    ranks, count = run.wish.ranks, run.case.batch
    missing = [index for index in range(count) if not places[index]]
    twice = [index for index in range(count) if len(places[index]) > 1]
    if twice and all(len(places[index]) == ranks for index in range(count)):
        return "every rank makes all prompts: nothing is divided, or the gathered pictures are returned by every rank"
    if twice and not missing and len(twice) == -count % ranks:
        return (
            "the list is padded by repetition until the ranks divide it, as DistributedSampler does by default; "
            "the padding must be dropped again"
        )
    if missing == list(range(count - count % ranks, count)) and not twice:
        return f"the remainder of the division by {ranks} ranks is dropped (N // world_size, drop_last)"
    if missing and not twice and not any(share.indices for share in run.shares if share.rank):
        return "the other ranks return nothing: only the first one's part arrives"
    return None


def explain_noise(run: Run, shared: Tensor) -> str | None:
    """Why samples start at the same states; `shared` says which rows of the one are which of the other."""
    drawn = sorted({source for share in run.shares for source in share.sources if source.startswith(_GLOBAL)})
    if drawn:
        return (
            f"noise is drawn from the process's own generator ({', '.join(drawn)}), which starts alike on every rank "
            "unless it is seeded by the rank or the sample"
        )
    if bool(shared.diagonal().any()):
        return "every rank seeds its generator alike, or draws from the request's, which is the same on every rank"
    return "the seeds of the ranks overlap: rank and place are added; `seed * world_size + rank` keeps them apart"


def explain_picture(index: int, picture: Tensor, alone: Run, ranks: Run, allowed: float) -> str | None:
    """Which picture it is instead, or where its noise comes from."""
    distances = {
        other: _largest(known, picture) for other, (_, known) in pictures(alone).items() if known.shape == picture.shape
    }
    others = [distance for other, distance in distances.items() if other != index]
    if others and min(others) <= allowed:
        return "it is another prompt's picture: they are gathered in another order than the prompts were dealt out"
    if others and distances[index] < _NEAR * min(others):
        return "it is nearly the same picture: something is computed over the part (a normalisation, padding, a dtype)"
    drawn = sorted({source for share in ranks.shares for source in share.sources if source.startswith(_GLOBAL)})
    if drawn:
        return f"noise is drawn from the process's own generator ({', '.join(drawn)})"
    return (
        "the seed of a sample depends on its rank or its place in the part and not on its index alone; where that is "
        "meant, declare rank_seeding='per_rank'"
    )


def explain_share(name: str, whole: Share, shares: tuple[Share, ...]) -> str | None:
    """Why the first tensor of a rank that differs from one process does: `starts`, `velocity` or a later one."""
    short = [dtype for share in shares for dtype in _dtypes(share) if dtype not in _dtypes(whole)]
    if short:
        name_of = str(short[0]).removeprefix("torch.")
        return f"the sharded network computes in {name_of}: the sharding has a precision policy of its own"
    if name == "starts":
        return "the ranks draw noise of their own, from a generator that is not the request's"
    if name == "velocity":
        return _explain_velocity(whole, shares)
    return (
        "the first velocity is right: the network keeps something from call to call, or what follows it is spread too"
    )


def _dtypes(share: Share) -> set[torch.dtype]:
    tensors = (share.starts, share.velocity, share.last_state)
    return {tensor.dtype for tensor in tensors if tensor is not None}


def _explain_velocity(whole: Share, shares: tuple[Share, ...]) -> str | None:
    """What the ranks' velocities are instead of the whole network's."""
    expected, found = whole.velocity, [share.velocity for share in shares if share.velocity is not None]
    if expected is None or len(found) < len(shares) or any(v.shape != expected.shape for v in found):
        return None
    ranks, reference = len(found), expected.double()
    sizes = [v.double() for v in found]
    for factor, text in (
        (1 / ranks, "what should be added over the ranks is averaged"),
        (float(ranks), "what is whole on every rank is added over the ranks"),
    ):
        if all(_relative(v, factor * reference) <= EXPLAINED for v in sizes):
            return f"it is {factor:g} times the whole network's: {text}"
    if _relative(torch.stack(sizes).sum(0), reference) <= EXPLAINED:
        return "the ranks' velocities add up to it: the partial sums of the last layer are not reduced"
    if any(_relative(v, sizes[0]) > EXPLAINED for v in sizes):
        right = [rank for rank, v in enumerate(sizes) if _relative(v, reference) <= EXPLAINED]
        if right:
            others = ", ".join(str(rank) for rank in range(ranks) if rank not in right)
            return f"only rank {others} differs: its weights are not those of the others"
        return "the ranks disagree: a partial sum inside the network is used before it is reduced over the ranks"
    return (
        "the ranks agree: a sum inside the network is averaged over the ranks, or weights are split along a wrong axis"
    )


def _largest(a: Tensor, b: Tensor) -> float:
    return float((a.double() - b.double()).abs().max())


def _relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())
