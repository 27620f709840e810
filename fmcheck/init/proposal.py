"""What is proposed: values with the evidence for each, what could be read in two ways, what is missing."""

from dataclasses import dataclass, field
from typing import Any

from fmcheck.init.driver import Driver

__all__ = ["Proposal"]


@dataclass
class Proposal:
    """A subject in the making.

    Attributes:
        spec: fields of the FlowSpec with the evidence for each.
        points: observation points by role: path, arguments by name, output, and the evidence.
        time_edges: expression of `case` for a declared grid, and its evidence.
        ambiguous: what was seen to be readable in two ways, and which was taken.
        missing: what must be filled in before the subject runs.
        unknown: what could not be found, and which rules are skipped for it.
    """

    driver: Driver
    spec: dict[str, tuple[Any, str]] = field(default_factory=dict)
    points: dict[str, tuple[str, dict[str, str | int | None], str | int | None, str]] = field(default_factory=dict)
    time_edges: tuple[str, str] | None = None
    annotations: dict[str, str] = field(default_factory=dict)
    ambiguous: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    evidence: list[str] = field(default_factory=list)

    def set(self, name: str, value: Any, evidence: str) -> None:
        self.spec[name] = (value, evidence)

    def value(self, name: str, default: Any = None) -> Any:
        return self.spec[name][0] if name in self.spec else default
