"""Runs on ranks made by hand or in this process, and the verdicts of rules on them: no process is started."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fmcheck.outcome import Evidence, Outcome
from fmcheck.plan import Plan, Run, Wish
from fmcheck.ranks.making import share_of
from fmcheck.ranks.share import PROMPTS, Share
from fmcheck.record.trace import Trace
from fmcheck.rules import get_rule
from fmcheck.subject import Subject
from fmcheck.subjects.tiny import subject as tiny

CASE = tiny.case.with_batch(PROMPTS).but(num_steps=1)
IN_TURN = ((0, 2, 4, 6), (1, 3, 5))
BLOCKS = ((0, 1, 2, 3), (4, 5, 6))
# Every number of the pictures is exact in bfloat16, and no two pictures are near each other.
PICTURES = torch.randint(-100, 101, (PROMPTS, 3, 2, 2), generator=torch.Generator().manual_seed(1)) / 128
STATES = torch.randn(PROMPTS, 4, 2, 2, generator=torch.Generator().manual_seed(2))


def part(rank: int, indices: Sequence[int], **fields: Any) -> Share:
    """A rank that made these prompts' pictures, guided in one doubled call each."""
    rows = [index % PROMPTS for index in indices]
    shapes = ("velocity[2,4,2,2]",) * len(rows)
    known = {"images": PICTURES[rows], "starts": STATES[rows].repeat_interleave(2, 0), "shapes": shapes}
    return Share(rank=rank, indices=tuple(indices), **{**known, **fields})


def run_of(*shares: Share, name: str = "ranks", kind: Any = "part", subject: Subject = tiny) -> Run:
    """A run on as many ranks as there are shares."""
    wish = Wish(name, CASE, kind, ranks=len(shares))
    return Run(wish, subject, Trace(CASE, kind), shares)


def alone(subject: Subject = tiny, **fields: Any) -> Run:
    """One process that made everything."""
    return run_of(part(0, range(PROMPTS), **fields), name="one-process", subject=subject)


def together(parts: Sequence[Sequence[int]] = IN_TURN, subject: Subject = tiny, **fields: Sequence[Any]) -> Run:
    """Ranks that made these parts; further fields have a value for every rank."""
    chosen = [{name: values[rank] for name, values in fields.items()} for rank in range(len(parts))]
    return run_of(*(part(rank, indices, **chosen[rank]) for rank, indices in enumerate(parts)), subject=subject)


def verdict(code: str, runs: Mapping[str, Run]) -> Outcome:
    """What a rule says about the runs, as a session would put it."""
    rule, evidence = get_rule(code), Evidence()
    evidence.collect(rule, "", None, lambda: rule.function(runs))
    return evidence.outcome(rule, None, 0.0)


def made_here(subject: Subject, code: str, nproc: int = 2) -> dict[str, Run]:
    """The runs that a rule wishes for, each rank in turn in this process; for code that needs no group."""
    plan = Plan(subject, nproc=nproc)
    model = subject.build(subject.case)
    runs = {}
    for name, wish in get_rule(code).wishes(plan).items():  # type: ignore[misc]
        shares = tuple(share_of(subject, model, wish, rank) for rank in range(wish.ranks))
        runs[name] = Run(wish, subject, Trace(wish.case, wish.kind), shares)
    return runs


def causes(outcome: Outcome) -> set[str]:
    return {str(finding.diagnosis) for finding in outcome.findings}


def rounded(tensor: Tensor, digits: float) -> Tensor:
    """The tensor with a relative error of that size, of the largest element."""
    noise = torch.rand(tensor.shape, generator=torch.Generator().manual_seed(3)) * 2 - 1
    return tensor + digits * tensor.abs().max() * noise
