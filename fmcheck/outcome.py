"""What became of the rules: findings, the six outcomes, and the report of a whole session."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch

from fmcheck.case import Case
from fmcheck.errors import InternalError, NotInformative
from fmcheck.rules import Check, Rule, Severity
from fmcheck.rules.blame import blamed

__all__ = ["Evidence", "Expected", "Finding", "Outcome", "Report", "Status", "stale_expectations"]

Status = Literal["passed", "failed", "expected", "skipped", "not informative", "out of resources"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A property that did not hold, with the evidence.

    Attributes:
        code, name: of the rule.
        message: what came and what should have come.
        where: run, row, step.
        case: the case of the run, None for a finding about several runs.
        ratio: used over allowed error, None for exact properties.
        diagnosis: the known mistake that reproduces the observed number.
    """

    code: str
    name: str
    severity: Severity
    message: str
    where: str = ""
    run: str = ""
    case: Case | None = None
    used: float | None = None
    allowed: float | None = None
    ratio: float | None = None
    diagnosis: str | None = None

    def __str__(self) -> str:
        parts = [f"{self.code} {self.name}: {self.message}"]
        if self.where:
            parts.append(f"at {self.where}")
        if self.diagnosis:
            parts.append(f"cause: {self.diagnosis}")
        return "; ".join(parts)


@dataclass(frozen=True)
class Expected:
    """An expected failure: why, and optionally a text that the finding must contain; others still fail."""

    reason: str
    match: str = ""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one rule. `reason` says why it was skipped, not informative, expected or out of resources.

    `checks` counts the comparisons that were really made; `ratio` is the largest used / allowed among them; `notes`
    are for the reader of a verbose report, such as what could not be tested; `measured` says what the subject does.
    """

    rule: Rule
    status: Status
    findings: tuple[Finding, ...] = ()
    reason: str = ""
    checks: int = 0
    ratio: float | None = None
    runs: tuple[str, ...] = ()
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    measured: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Report:
    """All outcomes of a session, and the runs that were made for them.

    `runs` maps the name of a run to the codes of the rules that wanted it; `calls` counts `generate()` calls.
    `problems` are stale expectations; `broken` are rules that broke: fmcheck's own defect, or that
    of the package which brought the rule.
    """

    subject: str
    outcomes: tuple[Outcome, ...]
    runs: Mapping[str, tuple[str, ...]]
    calls: int
    generate_seconds: float
    seconds: float
    problems: tuple[str, ...] = ()
    broken: tuple[InternalError, ...] = ()

    @property
    def findings(self) -> list[Finding]:
        """Findings of rules that were not expected to fail."""
        return [f for outcome in self.outcomes if outcome.status != "expected" for f in outcome.findings]

    def count(self, status: Status) -> int:
        return sum(outcome.status == status for outcome in self.outcomes)

    def failed(self, *, strict: bool = False) -> bool:
        """Whether a gate must fail: an error, a stale expectation, or (strict) a warning."""
        return bool(self.problems or self.broken) or any(
            f.severity == "error" or strict for f in self.findings if f.severity != "note"
        )


@dataclass
class Evidence:
    """What a rule yielded over its runs."""

    checks: int = 0
    ratio: float | None = None
    findings: list[Finding] = field(default_factory=list)
    silent: list[str] = field(default_factory=list)
    exhausted: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    measured: list[str] = field(default_factory=list)
    runs: list[str] = field(default_factory=list)

    def collect(self, rule: Rule, run: str, case: Case | None, judge: Callable[[], Iterable[Check]]) -> None:
        """Let a rule judge one run (or one relation), and keep whatever it yields."""
        before = self.checks
        try:
            # Making the runs may find the declaration wrong; once they are made, every error is the rule's own.
            evidence = judge()
            with blamed(rule, f"while judging run {run or 'relation'!r}"):
                for made in evidence:
                    self._add(rule, run, case, made)
        except NotInformative as reason:
            self.silent.append(str(reason))
        except (MemoryError, torch.OutOfMemoryError) as error:
            self.exhausted.append(f"run {run or 'of a relation'}: {error or 'out of memory'}")
        if self.checks > before and run:
            self.runs.append(run)
        elif self.checks == before and not self.silent:
            self.silent.append("nothing to compare")

    def _add(self, rule: Rule, run: str, case: Case | None, made: Check) -> None:
        if not isinstance(made, Check):
            raise TypeError(f"a rule yields fmcheck.Check, from exact() or within(); it yielded {made!r}")
        if made.measured:
            self.measured.append(made.measured)
            return
        if made.holds and made.severity == "note":
            self.notes.append(made.message)
            return
        self.checks += 1
        if made.ratio is not None:
            self.ratio = max(self.ratio or 0.0, made.ratio)
        if not made.holds:
            self.findings.append(
                Finding(
                    code=rule.code,
                    name=rule.name,
                    severity=made.severity,
                    message=made.message,
                    where=", ".join(part for part in (f"run {run}" if run else "", made.where) if part),
                    run=run,
                    case=case,
                    used=made.used,
                    allowed=made.allowed,
                    ratio=made.ratio,
                    diagnosis=made.diagnosis,
                )
            )

    def outcome(self, rule: Rule, expected: Expected | None, seconds: float) -> Outcome:
        status, reason = self._verdict(expected)
        return Outcome(
            rule=rule,
            status=status,
            findings=tuple(self.findings),
            reason=reason,
            checks=self.checks,
            ratio=self.ratio,
            runs=tuple(self.runs),
            seconds=seconds,
            notes=tuple(self.notes),
            measured=tuple(self.measured),
        )

    def _verdict(self, expected: Expected | None) -> tuple[Status, str]:
        if self.findings and expected and all(expected.match in finding.message for finding in self.findings):
            return "expected", expected.reason
        if any(finding.severity == "error" for finding in self.findings):
            return "failed", ""
        if self.exhausted:
            # What the other runs showed is kept in the findings; a pass would claim that all were looked at.
            return "out of resources", self.exhausted[0]
        if not self.checks:
            return "not informative", "; ".join(list(dict.fromkeys(self.silent))[:3])
        return "passed", ""


def stale_expectations(outcomes: Iterable[Outcome], expected: Mapping[str, Expected]) -> Iterator[str]:
    """Expected failures that did not happen: an error, or they would hide the next defect under the same code."""
    for outcome in outcomes:
        if outcome.rule.code in expected and outcome.status == "passed":
            reason = expected[outcome.rule.code].reason
            yield f"{outcome.rule}: expected to fail ({reason}) but passed; remove the entry"
