"""Hand-made rules, findings and reports: what a report looks like does not depend on a model."""

from collections.abc import Callable
from typing import Any

import pytest

from fmcheck import Case, Finding, Report
from fmcheck.outcome import Outcome
from fmcheck.report.context import Context
from fmcheck.rules import Rule
from fmcheck.subjects.tiny import subject

DOC = """The property holds: `v = (1 + w) c - w u`.

How it goes wrong: halves swapped, the scale of another convention. It costs a week.

Checked: every move.

Fix: combine as declared. Source: a paper.
"""


def make_rule(code: str = "FM203", name: str = "wrong-guidance", doc: str = DOC) -> Rule:
    def judge(run: object) -> Any: ...

    judge.__doc__ = doc
    return Rule(code, name, judge, ("velocity",), None, ("generate",), False)


def make_finding(message: str = "came out 3.5, expected 2.5", **changes: Any) -> Finding:
    fields: dict[str, Any] = {
        "code": "FM203",
        "name": "wrong-guidance",
        "severity": "error",
        "message": message,
        "where": "run base, step 0 of 4",
        "run": "base",
        "case": Case(),
    }
    return Finding(**{**fields, **changes})


def make_outcome(code: str, name: str, status: Any, *findings: Finding, **changes: Any) -> Outcome:
    return Outcome(rule=make_rule(code, name), status=status, findings=findings, checks=1, **changes)


@pytest.fixture
def context() -> Context:
    return Context(
        target="tiny",
        subject=subject,
        rerun="fmcheck run tiny --select {code} --seed 0",
        cases={"base": subject.case, "wide": subject.case.but(width=512)},
    )


@pytest.fixture
def report() -> Report:
    """Every outcome, every severity, an exact and a numeric finding, and a stale expectation."""
    wrong = [
        make_finding(used=1.0, allowed=1e-6, ratio=1e6),
        make_finding(
            "came out 9.5, expected 2.5", where="run wide, step 1 of 4", run="wide", used=7.0, allowed=1e-6, ratio=7e6
        ),
        make_finding(
            "came out 8.5, expected 2.5",
            where="run wide, step 2 of 4",
            run="wide",
            diagnosis="guidance is applied twice",
        ),
    ]
    warning = make_finding("the steps sum to 0.983", code="FM305", severity="warning", run="", case=None, where="")
    infinite = make_finding("infinitely off", code="FM109", used=1.0, allowed=0.0, ratio=float("inf"))
    outcomes = (
        make_outcome("FM109", "non-finite", "failed", infinite),
        make_outcome("FM203", "wrong-guidance", "failed", *wrong),
        make_outcome("FM204", "guidance-ignored", "expected", make_finding(code="FM204"), reason="until May"),
        make_outcome("FM305", "uncovered-path", "passed", warning),
        make_outcome("FM503", "drifting-state", "passed", ratio=0.71),
        make_outcome("FM804", "padding-leak", "skipped", reason="the subject declares no 'pad'"),
        make_outcome("FM805", "masked-text-leak", "skipped", reason="the subject declares no 'masked'"),
        make_outcome("FM301", "wrong-step-count", "not informative", reason="generate raised ValueError: no"),
        make_outcome("FM302", "time-not-monotone", "not informative", reason="generate raised ValueError: no"),
        make_outcome("FM902", "train-time-distribution", "out of resources", reason="no memory"),
    )
    return Report(
        subject="tiny",
        outcomes=outcomes,
        runs={"base": ("FM203",), "wide": ("FM203", "FM305")},
        calls=2,
        generate_seconds=1.0,
        seconds=1.5,
        problems=("FM401 x: expected to fail (y) but passed; remove the entry",),
    )


@pytest.fixture
def finding() -> Callable[..., Finding]:
    return make_finding


@pytest.fixture
def outcome() -> Callable[..., Outcome]:
    return make_outcome
