"""The kill table: every mutant against every rule."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from fmcheck.fuzz import Limits, campaign_of, examples_until
from fmcheck.mutants.registry import Mutant
from fmcheck.rules import all_rules
from fmcheck.run import Report, check
from fmcheck.strategies import Domain
from fmcheck.subject import Subject
from fmcheck.subjects.load import load_subject
from fmcheck.subjects.tiny import subject as tiny
from fmcheck.trial import Bench

__all__ = ["Kill", "kill_table"]

# Of a campaign on an odd mutant; the budget keeps its cases as small as witnesses are.
_EXAMPLES, _BUDGET = 200, 2**17


@dataclass(frozen=True, kw_only=True)
class Kill:
    """What became of one mutant.

    Attributes:
        by_named: whether the rule that the mutant names found it.
        also: codes of the other rules with a finding; known only where all rules were asked.
        calls: `generate()` calls that were made; examples of the campaign for an odd mutant.
        unjudged: why the named rule was skipped, as one about devices is on a machine that has a single one.
    """

    mutant: Mutant
    by_named: bool
    also: tuple[str, ...]
    calls: int
    seconds: float
    unjudged: str = ""

    @property
    def missed(self) -> bool:
        """Whether the named rule was asked and found nothing."""
        return not (self.by_named or self.unjudged)

    @property
    def verdict(self) -> str:
        """`caught by FMxxx`, `not judged`, `caught by another` or `missed`."""
        if self.by_named:
            return f"caught by {self.mutant.caught_by}"
        if self.unjudged:
            return f"not judged: {self.unjudged}"
        return "caught by another" if self.also else "missed"


def kill_table(
    mutants: Iterable[Mutant],
    on_mutant: Callable[[Kill], None] | None = None,
    subject: Subject = tiny,
    *,
    full: bool = False,
) -> list[Kill]:
    """Judge every mutant by the rule that it names, in the runs of the standard plan, or by a campaign if it is odd.

    Args:
        on_mutant: called with every line of the table as soon as it is known, for progress displays.
        subject: the clean subject that the mutants break.
        full: ask all rules about every mutant; otherwise only about those that the named rule misses.
    """
    kills = []
    for mutant in mutants:
        kill = _kill(mutant, subject, full=full)
        kills.append(kill)
        if on_mutant:
            on_mutant(kill)
    return kills


def _kill(mutant: Mutant, subject: Subject, *, full: bool) -> Kill:
    started = time.perf_counter()
    broken = mutant.change(subject)
    if mutant.odd:
        return _odd_kill(mutant, broken)
    on_ranks: dict[str, Any] = {"nproc": mutant.nproc, "load": partial(load_subject, f"mutant:{mutant.name}")}
    thorough = any(rule.code == mutant.caught_by and rule.costly for rule in all_rules())
    report = check(broken, select=() if full else (mutant.caught_by,), thorough=thorough, **on_ranks)
    named = next((outcome for outcome in report.outcomes if outcome.rule.code == mutant.caught_by), None)
    elsewhere = named is not None and named.status == "skipped" and "other_device" in named.rule.needs
    unjudged = named.reason if named is not None and elsewhere else ""
    if mutant.caught_by not in _codes(report) and not (full or unjudged):
        report = check(broken, **on_ranks)
    codes = _codes(report)
    return Kill(
        mutant=mutant,
        by_named=mutant.caught_by in codes,
        also=tuple(code for code in codes if code != mutant.caught_by),
        calls=report.calls,
        seconds=time.perf_counter() - started,
        unjudged=unjudged,
    )


def _odd_kill(mutant: Mutant, broken: Subject) -> Kill:
    """What a campaign with a fixed seed makes of a mutant that the standard plan does not show."""
    started = time.perf_counter()
    campaign = campaign_of(Bench(broken), domain=Domain(budget=_BUDGET), limits=Limits(examples=_EXAMPLES))
    examples = examples_until(mutant.caught_by, campaign)
    return Kill(
        mutant=mutant,
        by_named=examples is not None,
        also=(),
        calls=examples or _EXAMPLES,
        seconds=time.perf_counter() - started,
    )


def _codes(report: Report) -> list[str]:
    """Codes with a finding that a reader would act on, in the order of the rules."""
    return list(dict.fromkeys(finding.code for finding in report.findings if finding.severity != "note"))
