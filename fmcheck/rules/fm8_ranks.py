"""FM8, continued: several ranks make together what one process makes alone."""

from collections.abc import Iterator, Mapping
from functools import partial
from itertools import combinations_with_replacement

from torch import Tensor

from fmcheck.plan import Run
from fmcheck.rules.evidence import apart, bitwise, exact, require, require_finite, within
from fmcheck.rules.fm8_rank_causes import explain_noise, explain_picture, explain_places
from fmcheck.rules.fm8_rank_runs import (
    alike,
    holders,
    noise_runs,
    part_runs,
    pictures,
    repeated_runs,
    same_shapes,
)
from fmcheck.rules.fm8_rows import half_of_digits
from fmcheck.rules.registry import Check, rule

_PARTS = ("velocity", "generate_rank")


@rule("FM841", "ranks-miss-prompts", needs=_PARTS, wishes=part_runs, judges_crashes=True)
def ranks_miss_prompts(runs: Mapping[str, Run]) -> Iterator[Check]:
    """Together the ranks make every prompt exactly once: the indices of all parts are `0, ..., N - 1`, each once.

    How it goes wrong: a DistributedSampler pads its last part by repetition, so that some prompts count twice in the
    statistics; `N // world_size` drops the remainder; every rank makes everything; a rank without prompts raises; one
    rank waits for a collective that the others never call.

    Checked: seven prompts, a number that two to six ranks do not divide, made by one process and by all ranks: no rank
    fails, every rank returns a picture for each of its indices, every index occurs once. It believes the indices
    (FM844 compares the pictures).

    Fix: `range(rank, N, world_size)`, or drop the padded samples after they were gathered. Source: world-size
    invariance, property O of the collected defects; torch.utils.data.distributed.DistributedSampler, `drop_last`.
    """
    for run in runs.values():
        ranks, where = run.wish.ranks, f"run {run.name}"
        failure = run.failure
        yield exact(failure is None, f"the prompts are not made on {ranks} ranks: {failure}", where=where)
        if failure is not None:
            continue
        places = holders(run)
        for share in run.shares:
            made = 0 if share.images is None else len(share.images)
            yield exact(
                made == len(share.indices),
                f"rank {share.rank} returns {made} pictures and {len(share.indices)} indices",
                where=where,
            )
        for index, found in places.items():
            legal = 0 <= index < run.case.batch
            by = f"by ranks {found}" if found else "by no rank"
            yield exact(
                len(found) == 1 and legal,
                f"prompt {index} of {run.case.batch} is made {len(found)} times, {by}, expected once"
                if legal
                else f"rank {found[0]} returns index {index}, and there are {run.case.batch} prompts from 0",
                where=where,
                diagnosis=partial(explain_places, run, places),
            )


@rule("FM842", "ranks-share-noise", needs=_PARTS, wishes=noise_runs)
def ranks_share_noise(runs: Mapping[str, Run]) -> Iterator[Check]:
    """No two samples start from the same noise, on whichever ranks they are made.

    How it goes wrong: every rank calls `manual_seed(seed)`, or draws from a generator that was made before the ranks
    parted, or from torch's global one, which starts alike in every process. The pictures of the second rank repeat
    those of the first; with different prompts nobody sees it, and a diversity score is wrong.

    Checked: one prompt seven times, so that only the noise tells the samples apart: the states at which the network is
    first evaluated differ in more than half of their digits, within every rank and between any two. Where the states
    cannot be counted, the pictures. Not informative where one process repeats its noise too, by design or without any.

    Fix: seed a generator for every sample, `seed + index`; or for every rank, `seed * world_size + rank`. Source:
    world-size invariance, property O of the collected defects.
    """
    alone, ranks = runs["alone"], runs["ranks"]
    repeated = any(len(found) > 1 for found in holders(ranks).values())
    require(not repeated, "samples are made twice, their noise included (see FM841)")
    states = all(_countable(run) for run in runs.values())
    what = "states" if states else "pictures"
    for share in alone.shares:
        require(len(share.indices) > 1, "one process makes a single picture (see FM841)")
        same = _most(alike(share, share, alone, states=states)) > _branches(alone, states=states)
        require(not same, f"in one process, too, samples of one prompt have the same {what}")
    for first, second in combinations_with_replacement(ranks.shares, 2):
        pairs = alike(first, second, ranks, states=states)
        shared = _most(pairs) > (_branches(ranks, states=states) if first is second else 0)
        named = f"rank {first.rank}" if first is second else f"ranks {first.rank} and {second.rank}"
        yield exact(
            not shared,
            f"samples of one prompt on {named} have the same initial {what}"
            if states
            else f"samples of one prompt on {named} are the same picture",
            where=f"run {ranks.name}",
            diagnosis=partial(explain_noise, ranks, pairs),
        )


def _countable(run: Run) -> bool:
    return run.shares != () and _branches(run, states=True) in (1, 2)


def _branches(run: Run, *, states: bool) -> float:
    """How many rows a sample has among the first evaluations: two where guidance evaluates both branches."""
    samples = sum(len(share.indices) for share in run.shares)
    rows = sum(len(share.starts) for share in run.shares if share.starts is not None)
    return (rows / samples if samples else 0.0) if states else 1.0


def _most(pairs: Tensor) -> int:
    """To how many rows of the second share a row of the first is alike, at most."""
    return int(pairs.sum(1).max()) if pairs.numel() else 0


@rule("FM844", "ranks-change-pictures", needs=_PARTS, wishes=part_runs)
def ranks_change_pictures(runs: Mapping[str, Run]) -> Iterator[Check]:
    """The picture of prompt i is the same on any number of ranks: `G_R(prompts)[i] = G_1(prompts)[i]`.

    How it goes wrong: parts are gathered rank by rank although they were dealt out in turn, so that pictures stand
    beside the wrong prompts; a sample's seed is its place in the part or depends on the rank; noise comes from a
    global generator; a normalisation runs over the part. Scores then depend on how many GPUs were free.

    Checked: every prompt's picture on all ranks against that of one process, with other states of the global random
    generators: bit for bit where the calls have the same shapes (on CPU), else to half of the digits, since batches of
    other sizes round differently. Not informative where the subject declares that noise
    depends on the rank (`rank_seeding="per_rank"`); the order of the pictures is then believed.

    Fix: seed every sample by its index; put pictures back by their indices. Source: world-size invariance, property O
    of the collected defects.
    """
    alone, ranks = runs["alone"], runs["ranks"]
    seeding = alone.subject.rank_seeding
    require(seeding == "per_sample", "noise is declared to depend on the rank, so other ranks make other pictures")
    expected, found = pictures(alone), pictures(ranks)
    both = [index for index in expected if index in found]
    require(bool(both), "no prompt is made both by one process and by the ranks (see FM841)")
    strict = same_shapes(alone, ranks)
    for index in both:
        (_, right), (rank, picture) = expected[index], found[index]
        require_finite(right, picture)
        yield _same_picture(index, right, picture, f"rank {rank}, prompt {index}", alone, ranks, strict=strict)


def _same_picture(
    index: int, right: Tensor, picture: Tensor, where: str, alone: Run, ranks: Run, *, strict: bool
) -> Check:
    text = f"the picture of prompt {index} on {ranks.wish.ranks} ranks is not that of one process"
    if right.shape != picture.shape or strict:
        return exact(
            bitwise(right, picture),
            f"{text}: {apart(right, picture)}",
            where=where,
            diagnosis=lambda: explain_picture(index, picture, alone, ranks, 0.0),
        )
    allowed = half_of_digits(alone, right)
    change = float((picture.double() - right.double()).abs().max())
    return within(
        change,
        allowed,
        f"{text}: largest difference {change:.3g}, allowed {allowed:.3g}",
        where=where,
        diagnosis=lambda: explain_picture(index, picture, alone, ranks, allowed),
    )


@rule("FM845", "ranks-not-repeatable", needs=_PARTS, wishes=repeated_runs)
def ranks_not_repeatable(runs: Mapping[str, Run]) -> Iterator[Check]:
    """The same seed on the same number of ranks gives the same pictures, whatever the processes did before.

    How it goes wrong: a rank seeds itself from the clock, the process number or the operating system, so that no two
    ranks are alike and no run is ever made again; noise comes from a global generator that nobody seeded.

    Checked: all ranks twice, with other states of the global random generators: every rank has the same prompts and,
    bit for bit on CPU (elsewhere to half of the digits), the same pictures. This holds for every `rank_seeding`.

    Fix: make seeds from the request's seed, and from nothing else but rank and index. Source: world-size invariance,
    property O of the collected defects.
    """
    first, again = runs["ranks"], runs["again"]
    for one, other in zip(first.shares, again.shares, strict=True):
        where = f"rank {one.rank} of {first.wish.ranks}"
        yield exact(
            one.indices == other.indices,
            f"the second time the rank makes prompts {list(other.indices)} instead of {list(one.indices)}",
            where=where,
            diagnosis="prompts are shuffled by a generator that nobody seeds",
        )
        if one.images is None or other.images is None or not one.indices:
            continue
        require_finite(one.images, other.images)
        same = bitwise(one.images, other.images)
        if not same and one.images.shape == other.images.shape and first.case.device != "cpu":
            change = float((one.images.double() - other.images.double()).abs().max())
            same = change <= half_of_digits(first, one.images)
        yield exact(
            same,
            f"the second time the pictures are others: {apart(one.images, other.images)}",
            where=where,
            diagnosis=lambda: _unseeded(first),
        )


def _unseeded(run: Run) -> str:
    sources = {source for share in run.shares for source in share.sources} - {"caller"}
    if sources:
        return f"noise is drawn from the process's own generator ({', '.join(sorted(sources))})"
    return "a generator is seeded from the clock or the operating system"
