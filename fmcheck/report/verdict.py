"""The verdict of a gate: the counts, and whether and why it fails."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

from fmcheck.errors import ForeignRuleError
from fmcheck.outcome import Report, Status

__all__ = ["STATUSES", "Verdict", "counted", "plural", "some", "verdict_of"]

STATUSES: tuple[Status, ...] = get_args(Status)
# A rule has judged when it compared something; the other three outcomes say that nobody looked.
_JUDGED: tuple[Status, ...] = ("passed", "failed", "expected")


_CODES_SHOWN = 12


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Counts of a report, and the reasons for which its gate fails; it is clean when there are none.

    `judged` counts the rules that compared something; `shortfall` says so when they are fewer than the gate demands.
    """

    statuses: Mapping[str, int]
    severities: Mapping[str, int]
    judged: int
    shortfall: str
    reasons: tuple[str, ...]

    @property
    def failed(self) -> bool:
        return bool(self.reasons)


def verdict_of(report: Report, *, strict: bool = False, min_checked: int = 1) -> Verdict:
    """Judge a report: errors, stale expectations, too few rules that looked, and with `strict` warnings fail it."""
    statuses: dict[str, int] = {status: report.count(status) for status in STATUSES}
    severities = {s: sum(f.severity == s for f in report.findings) for s in ("error", "warning", "note")}
    judged = sum(statuses[status] for status in _JUDGED)
    reasons = []
    if statuses["failed"]:
        codes = [outcome.rule.code for outcome in report.outcomes if outcome.status == "failed"]
        reasons.append(f"{plural(len(codes), 'rule')} failed ({some(codes)})")
    if strict and severities["warning"]:
        reasons.append(f"{plural(severities['warning'], 'warning')}, and warnings fail a strict gate")
    if report.problems:
        reasons.append(plural(len(report.problems), "stale expected failure"))
    foreign = sum(isinstance(error, ForeignRuleError) for error in report.broken)
    if foreign:
        reasons.append(f"{plural(foreign, 'rule')} of another package broke")
    if len(report.broken) > foreign:
        reasons.append(f"fmcheck broke on {plural(len(report.broken) - foreign, 'rule')}")
    shortfall = ""
    if judged < min_checked:
        shortfall = f"only {plural(judged, 'rule')} really judged something, and {min_checked} must"
        reasons.append(shortfall)
    return Verdict(statuses=statuses, severities=severities, judged=judged, shortfall=shortfall, reasons=tuple(reasons))


def counted(verdict: Verdict) -> str:
    """The six outcomes in words: `52 passed, 3 failed, …`."""
    words = {"expected": "expected failure" if verdict.statuses["expected"] == 1 else "expected failures"}
    return ", ".join(f"{count} {words.get(status, status)}" for status, count in verdict.statuses.items())


def some(codes: list[str]) -> str:
    """`FM201 FM203`, and after a dozen `and 7 more`."""
    more = f" and {len(codes) - _CODES_SHOWN} more" if len(codes) > _CODES_SHOWN else ""
    return f"{' '.join(codes[:_CODES_SHOWN])}{more}"


def plural(count: int, noun: str) -> str:
    """`1 rule`, `2 rules`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
