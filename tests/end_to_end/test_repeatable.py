"""The same subject gives the same report, digit for digit, however often it is checked."""

from typing import Any

import pytest

from fmcheck.run import Report, check
from fmcheck.subjects.tiny import subject


def _without_times(report: Report) -> list[Any]:
    rows = []
    for outcome in report.outcomes:
        rows.append(
            (outcome.rule.code, outcome.status, outcome.checks, outcome.ratio, outcome.reason, outcome.findings)
        )
    return [rows, dict(report.runs), report.calls]


def test_two_reports_are_identical() -> None:
    assert _without_times(check(subject)) == _without_times(check(subject))


@pytest.mark.slow
def test_twenty_reports_are_identical_and_clean() -> None:
    reports = [check(subject) for _ in range(20)]
    assert not any(report.failed(strict=True) for report in reports)
    assert len({repr(_without_times(report)) for report in reports}) == 1


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 13))
def test_the_clean_model_is_clean_at_every_seed(seed: int) -> None:
    """No verdict may hang on one lucky draw."""
    report = check(subject, seed=seed)
    assert [str(finding) for finding in report.findings] == []
