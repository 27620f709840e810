"""What the picture of a finding shows: its text, the numbers it used, and the quantity that its rule judges."""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from fmcheck.outcome import Finding
from fmcheck.plan import Run
from fmcheck.plots.canvas import caption
from fmcheck.plots.quantity import Flags, Panel, quantity
from fmcheck.rules import Rule
from fmcheck.session import Session

__all__ = ["Bar", "Page", "finding_page"]

_STEP = re.compile(r"\b(?:step|evaluation) (\d+)")
_BARS, _PLACES = 6, 12


@dataclass(frozen=True, kw_only=True)
class Bar:
    """Used and allowed error of one finding."""

    label: str
    used: float
    allowed: float


@dataclass(frozen=True, kw_only=True)
class Page:
    """Everything on one picture. `shown` is the run of the panels in words, `places` those of all `count` findings."""

    code: str
    name: str
    severity: str
    must_hold: str
    message: str
    where: str
    diagnosis: str
    count: int
    shown: str = ""
    panels: tuple[Panel, ...] = ()
    flags: Flags | None = None
    bars: tuple[Bar, ...] = ()
    places: tuple[str, ...] = ()


def finding_page(session: Session, rule: Rule, findings: Sequence[Finding]) -> Page:
    """The page of a rule: its first finding, with the quantity that it judges where that is one over steps."""
    first = findings[0]
    runs = {wish.name: run for wish, run in session.made.items() if isinstance(run, Run)}
    shown = _run_of(first, runs) or session.plan.base.name
    run = runs.get(shown)
    drawn = run is not None and run.trace.kind == "generate"
    steps = _steps_named(finding for finding in findings if _run_of(finding, runs) in (shown, ""))
    panels, flags = quantity(rule.code, run, steps) if run is not None and drawn else ((), None)
    return Page(
        code=rule.code,
        name=rule.name,
        severity=first.severity,
        must_hold=rule.summary,
        message=first.message,
        where=first.where,
        diagnosis=first.diagnosis or "",
        count=len(findings),
        shown=caption(run) if run is not None and (panels or flags) else "",
        panels=panels,
        flags=flags,
        bars=_worst_by_run(findings),
        places=_places(findings),
    )


def _worst_by_run(findings: Sequence[Finding]) -> tuple[Bar, ...]:
    """The largest used over allowed of every run (or place, for findings about several runs), worst first."""
    worst_of: dict[str, Finding] = {}
    for finding in findings:
        if finding.ratio is not None:
            key = finding.run or finding.where
            known = worst_of.get(key)
            if known is None or (finding.ratio > (known.ratio or 0.0)):
                worst_of[key] = finding
    ranked = sorted(worst_of.values(), key=lambda finding: -(finding.ratio or 0.0))
    return tuple(
        Bar(label=finding.where or finding.code, used=finding.used or 0.0, allowed=finding.allowed or 0.0)
        for finding in ranked[:_BARS]
    )


def _places(findings: Sequence[Finding]) -> tuple[str, ...]:
    """Where findings were made and how many, by runs."""
    counts = Counter(f"run {finding.run}" if finding.run else finding.where for finding in findings)
    counts.pop("", None)
    places = [place if count == 1 else f"{place} ({count} times)" for place, count in counts.most_common()]
    rest = len(places) - _PLACES
    return (*places[:_PLACES], *([f"and {rest} more"] if rest > 0 else []))


def _run_of(finding: Finding, runs: Collection[str]) -> str:
    """Name of the run that a finding was made in, or speaks of first; "" for one that names none.

    A rule that compares runs says in its own words which one it is about.
    """
    if finding.run:
        return finding.run
    found = ((re.search(f"runs? {re.escape(name)}", finding.where), name) for name in runs)
    # Of names that begin alike the longest.
    return min(((match.start(), -len(name), name) for match, name in found if match), default=("",))[-1]


def _steps_named(findings: Iterable[Finding]) -> frozenset[int]:
    """Steps (or evaluations) that findings name."""
    named = [_STEP.search(finding.where) for finding in findings]
    return frozenset(int(match[1]) for match in named if match)
