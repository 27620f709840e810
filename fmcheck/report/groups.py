"""Findings that say the same thing in several places, as one group."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from fmcheck.outcome import Finding

__all__ = ["Group", "group_findings", "shape_of"]

_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*(?:e[-+]?\d+)?|\binf\b|\bnan\b)", re.IGNORECASE)
_RUN = re.compile(r"\brun '[^']*'")
_LIST = re.compile(r"#(?:, #)+")


@dataclass
class Group:
    """Findings of one rule whose messages differ only in their numbers; the first is shown in full."""

    first: Finding
    findings: list[Finding] = field(default_factory=list)

    @property
    def worst(self) -> Finding:
        """The finding with the largest used / allowed; the first one when the property is exact."""
        return max(self.findings, key=lambda f: f.ratio if f.ratio is not None else 0.0)

    @property
    def runs(self) -> dict[str, int]:
        """How many of the findings each run has, by its name; empty for a rule about several runs."""
        counts: dict[str, int] = {}
        for finding in self.findings:
            if finding.run:
                counts[finding.run] = counts.get(finding.run, 0) + 1
        return counts

    @property
    def diagnoses(self) -> list[str]:
        """The known mistakes that reproduce the numbers, the most frequent first, each kind once."""
        kinds: dict[str, list[str]] = {}
        for finding in self.findings:
            if finding.diagnosis:
                kinds.setdefault(shape_of(finding.diagnosis), []).append(finding.diagnosis)
        return [texts[0] for texts in sorted(kinds.values(), key=len, reverse=True)]


def group_findings(findings: Iterable[Finding]) -> list[Group]:
    """Group by rule, severity and the shape of the message, in the order of first appearance."""
    groups: dict[tuple[str, str, str], Group] = {}
    for finding in findings:
        key = (finding.code, finding.severity, shape_of(finding.message))
        groups.setdefault(key, Group(finding)).findings.append(finding)
    return list(groups.values())


def shape_of(text: str) -> str:
    """A text without its numbers and run names, equal for texts that say the same thing of several places."""
    # Only lists written with spaces collapse: f32[6,1] and f32[6,1,1] are different faults.
    return _LIST.sub("#", _NUMBER.sub("#", _RUN.sub("run", text)))
