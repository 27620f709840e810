"""Reproduction: one finding as plain data that a text file can hold, and that text."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import tomli_w

from fmcheck.errors import DeclarationError
from fmcheck.outcome import Finding
from fmcheck.repro.digest import Print
from fmcheck.repro.settings import Settings
from fmcheck.scenario import Scenario

__all__ = ["LONGEST_TEXT", "SCHEMA", "SUFFIX", "Expect", "Reproduction", "content_hash", "content_name", "kept"]

# Raised when a field changes its meaning or a required one comes.
SCHEMA = 1
SUFFIX = ".fmcheck.toml"
Expect = Literal["fixed", "reproduced"]
# Of the message and the diagnosis of a finding.
LONGEST_TEXT = 4000
_DIGITS = 10
_NUMBERS = ("used", "allowed", "ratio")


@dataclass(frozen=True, kw_only=True)
class Reproduction:
    """A finding, and all that it takes to see it again.

    Attributes:
        target: the subject's name, see :func:`fmcheck.subjects.load_subject`.
        finding: the rule's first; its `run` and `case` stay behind, the scenario says more.
        scenario: what to ask of the subject.
        also: codes of the other rules that failed in the same scenario.
        expect: what a test of this file demands: that the finding is `fixed`, or that it is still `reproduced`.
        time_limit: seconds that a replay in a process of its own may take.
        versions, settings: of the process that recorded it.
        prints: fingerprints of the key tensors of its calls.
    """

    target: str
    finding: Finding
    scenario: Scenario
    also: tuple[str, ...] = ()
    expect: Expect = "fixed"
    time_limit: float = 600.0
    versions: Mapping[str, str] = field(default_factory=dict)
    settings: Settings
    prints: tuple[Print, ...] = ()

    @property
    def code(self) -> str:
        return self.finding.code

    @property
    def name(self) -> str:
        """The file's name. Equal finds have equal names, whenever and wherever they are found."""
        return content_name(self.target, self.code, self.scenario)

    def as_table(self) -> dict[str, Any]:
        """Plain data for TOML."""
        return {
            "schema": SCHEMA,
            "subject": self.target,
            "expect": self.expect,
            "time_limit": self.time_limit,
            "finding": {**_finding_table(self.finding), "also": list(self.also)},
            "scenario": self.scenario.as_table(),
            "versions": dict(self.versions),
            "settings": self.settings.as_table(),
            "prints": [print_.as_table() for print_ in self.prints],
        }

    def as_text(self, header: str = "") -> str:
        """The file's text, below a header of comment lines.

        Raises:
            DeclarationError: a prompt that no UTF-8 file can hold (half of a surrogate pair).
        """
        text = f"{header}\n{tomli_w.dumps(self.as_table())}"
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise DeclarationError(
                f"{self.name}: expected text that UTF-8 can hold; found the lone surrogate "
                f"{text[error.start]!r}: such a prompt cannot be kept in a file"
            ) from error
        return text


def _finding_table(finding: Finding) -> dict[str, Any]:
    texts = {name: getattr(finding, name) for name in ("code", "name", "severity", "message", "where", "diagnosis")}
    numbers = {name: getattr(finding, name) for name in _NUMBERS}
    cut = {name: kept(text) for name, text in texts.items() if text is not None}
    return {**cut, **{name: float(number) for name, number in numbers.items() if number is not None}}


def kept(text: str) -> str:
    """A message as a file can hold it: it may quote anything, and lead on for pages."""
    return text.encode("utf-8", "backslashreplace").decode()[:LONGEST_TEXT]


def content_hash(target: str, code: str, scenario: Scenario) -> str:
    """Hexadecimal digits that only the subject's name, the rule and the scenario decide."""
    table = scenario.as_table()
    for call in table["calls"]:
        # 2 and 2.0 are equal scales, and must make one file.
        call["case"]["guidance_scale"] = float(call["case"]["guidance_scale"])
    # JSON in ASCII, since UTF-8 cannot hold every prompt that Python can.
    content = json.dumps([target, code, table], sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(content.encode()).hexdigest()


def content_name(target: str, code: str, scenario: Scenario) -> str:
    """`fm203-0a1b2c3d4e.fmcheck.toml`."""
    return f"{code.lower()}-{content_hash(target, code, scenario)[:_DIGITS]}{SUFFIX}"
