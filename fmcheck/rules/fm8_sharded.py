"""FM8, continued: a velocity network that is spread over several ranks is the network."""

from collections.abc import Iterator, Mapping
from functools import partial

import torch
from torch import Tensor

from fmcheck.plan import Run
from fmcheck.rules.evidence import Diagnosis, exact, given, measured, require, require_finite, within
from fmcheck.rules.fm8_rank_causes import explain_share
from fmcheck.rules.fm8_rank_runs import sharded_runs
from fmcheck.rules.registry import Check, rule
from fmcheck.tolerance.devices import kernel_eps
from fmcheck.tolerance.ranks import split_bound


@rule("FM843", "sharding-changes-velocity", needs=("velocity", "shard"), wishes=sharded_runs, judges_crashes=True)
def sharding_changes_velocity(runs: Mapping[str, Run]) -> Iterator[Check]:
    """A velocity network that is spread over ranks gives the velocity of the whole one, on every rank, up to rounding.

    How it goes wrong: partial sums are used before they are reduced, or averaged instead of added; heads are split and
    their number is not; a bias is added on every rank and summed; one rank loads other weights, draws other noise; the
    sharding casts to a shorter dtype.

    Checked: `shard` is called on a new model over a mesh of all ranks, then `generate` on every rank with the same
    inputs: the first states, the first velocity, the last state and the pictures of each rank against those of one
    process. Gathered weights give equal bits; sums in another order differ by rounding, for which the square root of
    eps is allowed a pass. It cannot see a sharding that is right on one machine and wrong between two.

    Fix: as the diagnosis says; compare one layer at a time. Source: world-size invariance, property O of the collected
    defects; Megatron-LM, arXiv 1909.08053, section 3; summation order, Higham, section 3.1.
    """
    whole, sharded = runs["whole"], runs["sharded"]
    require(whole.failure is None, f"run {whole.name!r}: {whole.failure}")
    (one,) = whole.shares
    velocity = given(one.velocity, "the velocity network was never called")
    require(bool(velocity.any()), "every velocity is zero, so sharding has nothing to change")
    failure = sharded.failure
    yield exact(failure is None, f"the sharded network does not run on {sharded.wish.ranks} ranks: {failure}")
    require(failure is None, f"run {sharded.name!r}: {failure}")
    bounds = _bounds(whole)
    for share in sharded.shares:
        first = ""
        for name, allowed in bounds.items():
            expected, found = getattr(one, name), getattr(share, name)
            if expected is not None:
                why = f"follows from {_WORDS[first]}" if first else partial(explain_share, name, one, sharded.shares)
                check = _kept(name, expected, found, allowed, share.rank, why)
                first = first or ("" if check.holds else name)
                yield check
    largest = max(_distance(velocity, share.velocity) for share in sharded.shares)
    equal = "bit for bit" if largest == 0 else f"within {largest:.2g} (relative, rms)"
    yield measured(f"velocity of the network sharded over {sharded.wish.ranks} ranks: that of one process, {equal}")


_WORDS = {
    "starts": "the states at which the flow begins",
    "velocity": "the first velocity",
    "last_state": "the last state of the loop",
    "images": "the pictures",
}


def _bounds(whole: Run) -> dict[str, float]:
    """Allowed relative distances: one network before each tensor and, behind the loop, its velocities collected."""
    case, spec = whole.case, whole.subject.spec
    precision = torch.get_float32_matmul_precision()
    eps = kernel_eps(case.torch_dtype, matmul=precision, convolutions_in_tf32=case.device.startswith("cuda"))
    weight, calls = spec.guidance_weight(case.guidance_scale), case.num_steps * spec.stages
    return {
        "starts": split_bound(eps, passes=1),
        "velocity": split_bound(eps, passes=2),
        "last_state": split_bound(eps, passes=1, weight=weight, collected=True, calls=calls),
        "images": split_bound(eps, passes=2, weight=weight, collected=True, calls=calls),
    }


def _kept(name: str, expected: Tensor, found: Tensor | None, allowed: float, rank: int, why: Diagnosis) -> Check:
    require_finite(expected)
    used = _distance(expected, found)
    return within(
        used,
        allowed,
        f"{_WORDS[name]} on rank {rank}: {used:.3g} away from one process (rms, relative), reordered sums allow "
        f"{allowed:.3g}",
        where=f"rank {rank}",
        diagnosis=why,
    )


def _distance(expected: Tensor, found: Tensor | None) -> float:
    """`rms(found - expected) / rms(expected)`; infinite for another shape, NaN fails every bound."""
    if found is None or found.shape != expected.shape:
        return float("inf")
    size = float(expected.double().norm())
    difference = float((found.double() - expected.double()).norm())
    return difference / size if size else difference
