"""The kill table: every mutant against every rule."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from fmcheck.mutants.registry import Mutant
from fmcheck.run import Report, check
from fmcheck.subject import Subject
from fmcheck.subjects.tiny import subject as tiny

__all__ = ["Kill", "kill_table"]


@dataclass(frozen=True, kw_only=True)
class Kill:
    """What became of one mutant.

    Attributes:
        by_named: whether the rule that the mutant names found it.
        also: codes of the other rules with a finding; known only where all rules were asked.
        calls: `generate()` calls that were made.
    """

    mutant: Mutant
    by_named: bool
    also: tuple[str, ...]
    calls: int
    seconds: float

    @property
    def verdict(self) -> str:
        """`caught by FMxxx`, `caught by another` or `missed`."""
        if self.by_named:
            return f"caught by {self.mutant.caught_by}"
        return "caught by another" if self.also else "missed"


def kill_table(
    mutants: Iterable[Mutant],
    on_mutant: Callable[[Kill], None] | None = None,
    subject: Subject = tiny,
    *,
    full: bool = False,
) -> list[Kill]:
    """Judge every mutant by the rule that it names, in the runs of the standard plan.

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
    report = check(broken, select=() if full else (mutant.caught_by,))
    if mutant.caught_by not in _codes(report) and not full:
        report = check(broken)
    codes = _codes(report)
    return Kill(
        mutant=mutant,
        by_named=mutant.caught_by in codes,
        also=tuple(code for code in codes if code != mutant.caught_by),
        calls=report.calls,
        seconds=time.perf_counter() - started,
    )


def _codes(report: Report) -> list[str]:
    """Codes with a finding that a reader would act on, in the order of the rules."""
    return list(dict.fromkeys(finding.code for finding in report.findings if finding.severity != "note"))
