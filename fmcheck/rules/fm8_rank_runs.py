"""Runs on several ranks, and their shares put together."""

from collections.abc import Mapping

import torch
from torch import Tensor

from fmcheck.plan import OTHER_PROMPTS, Plan, Run, Wish
from fmcheck.ranks.share import PROMPTS, Share
from fmcheck.tolerance import half_digits

__all__ = [
    "Places",
    "alike",
    "holders",
    "noise_runs",
    "part_runs",
    "pictures",
    "repeated_runs",
    "same_shapes",
    "sharded_runs",
]

# The global generators of the process, other ones in every run: whoever draws from them is found out. The ranks of one
# run have the same, as processes have that seed none of torch's.
_ALONE, _TOGETHER, _AGAIN = 20250826, 20250827, 20250828

Places = Mapping[int, list[int]]


def part_runs(plan: Plan) -> dict[str, Wish]:
    """Different prompts, made by one process and by all ranks."""
    return {"alone": _part(plan, "one-process", 1, _ALONE), "ranks": _part(plan, "ranks", plan.nproc, _TOGETHER)}


def repeated_runs(plan: Plan) -> dict[str, Wish]:
    """The same ranks twice."""
    again = _part(plan, "ranks-again", plan.nproc, _AGAIN)
    return {"ranks": part_runs(plan)["ranks"], "again": again}


def noise_runs(plan: Plan) -> dict[str, Wish]:
    """One prompt over and over, so that nothing but the noise can tell the samples apart."""
    equal = plan.native.prompts[:1] * PROMPTS
    return {
        "alone": _part(plan, "one-process-one-prompt", 1, _ALONE, equal),
        "ranks": _part(plan, "ranks-one-prompt", plan.nproc, _TOGETHER, equal),
    }


def sharded_runs(plan: Plan) -> dict[str, Wish]:
    """The native case with the whole network in one process, and with a network that is spread over the ranks."""
    return {
        "whole": Wish("unsharded", plan.native, disturb_rng=_ALONE, ranks=1),
        "sharded": Wish("sharded", plan.native, "shard", disturb_rng=_TOGETHER, ranks=plan.nproc),
    }


def _part(plan: Plan, name: str, ranks: int, disturb: int, prompts: tuple[str, ...] | None = None) -> Wish:
    different = tuple(dict.fromkeys((*plan.native.prompts, *OTHER_PROMPTS)))
    case = plan.small.but(prompts=prompts or different).with_batch(PROMPTS)
    return Wish(name, case.but(num_steps=min(2, case.num_steps)), "part", disturb_rng=disturb, ranks=ranks)


def holders(run: Run) -> Places:
    """The ranks that made a picture of a prompt, by the index of the prompt; a rank stands there once for each."""
    found: dict[int, list[int]] = {index: [] for index in range(run.case.batch)}
    for share in run.shares:
        for index in share.indices:
            found.setdefault(index, []).append(share.rank)
    return found


def pictures(run: Run) -> dict[int, tuple[int, Tensor]]:
    """`(rank, picture)` of every prompt, by its index: the first one, where there are several (see FM841)."""
    found: dict[int, tuple[int, Tensor]] = {}
    for share in run.shares:
        for index, picture in zip(share.indices, () if share.images is None else share.images, strict=False):
            found.setdefault(index, (share.rank, picture))
    return found


def same_shapes(one: Run, other: Run) -> bool:
    """Whether every sample was computed by the same calls in both runs, on CPU: then its bits are the same.

    The calls have the same shapes, and the network's have one: otherwise the samples may be in other batches.
    """
    found = [sorted(shape for share in run.shares for shape in share.shapes) for run in (one, other)]
    networks = {shape for shape in found[0] if shape.startswith("velocity")}
    return found[0] == found[1] and len(networks) == 1 and one.case.device == "cpu"


def alike(a: Share, b: Share, run: Run, *, states: bool) -> Tensor:
    """Which rows of two shares agree in half of their digits, `[rows of a, rows of b]` bool: their states or images.

    Not bit for bit, since batches of other sizes round differently before the noise is added.
    """
    first, second = (_rows(share, states=states) for share in (a, b))
    if not len(first) or not len(second):
        return torch.zeros(len(first), len(second), dtype=torch.bool)
    digits = max(half_digits(dtype) for dtype in (first.dtype, second.dtype, run.case.torch_dtype))
    largest = max(float(first.abs().max()), float(second.abs().max()))
    apart = torch.cdist(first.double().flatten(1), second.double().flatten(1), p=torch.inf)
    return apart <= digits * largest


def _rows(share: Share, *, states: bool) -> Tensor:
    rows = share.starts if states else share.images
    return torch.empty(0) if rows is None else rows
