"""The report as one JSON document."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from fmcheck.outcome import Finding, Outcome, Report
from fmcheck.report.context import Context, versions
from fmcheck.report.verdict import Verdict
from fmcheck.rules import Rule

__all__ = ["SCHEMA", "finding_table", "finite", "report_json", "rules_json"]

# Raised when a field changes its meaning or goes; new fields do not raise it.
SCHEMA = 1


def report_json(
    report: Report, verdict: Verdict, context: Context, plots: Sequence[Mapping[str, Any]] | None = None
) -> str:
    """Everything that the text report says and every finding behind it. Infinity and NaN become strings.

    Args:
        plots: name, path and reason of every picture; None where none were asked for.
    """
    document = {
        "schema": SCHEMA,
        "subject": context.target,
        "case": context.case.as_table(),
        "versions": versions(context.case.device),
        "remarks": list(context.remarks),
        "verdict": {"failed": verdict.failed, "reasons": list(verdict.reasons)},
        "counts": {**verdict.statuses, "judged": verdict.judged},
        "severities": dict(verdict.severities),
        "outcomes": [_outcome(outcome, context) for outcome in report.outcomes],
        "problems": list(report.problems),
        "runs": [_run(name, codes, context) for name, codes in report.runs.items()],
        "generate_calls": report.calls,
        "generate_seconds": report.generate_seconds,
        "seconds": report.seconds,
    }
    if plots is not None:
        document["plots"] = list(plots)
    return json.dumps(finite(document), indent=2, ensure_ascii=False, allow_nan=False)


def rules_json(rules: list[Rule]) -> str:
    """Code, name, family, what must hold, needs and documentation of every rule."""
    return json.dumps(
        [
            {
                "code": rule.code,
                "name": rule.name,
                "family": rule.family,
                "package": rule.package or "fmcheck",
                "must_hold": rule.summary,
                "needs": list(rule.needs),
                "kind": "trace" if rule.wishes is None else "relation",
                "documentation": rule.doc,
            }
            for rule in rules
        ],
        indent=2,
        ensure_ascii=False,
    )


def _outcome(outcome: Outcome, context: Context) -> dict[str, Any]:
    return {
        "code": outcome.rule.code,
        "name": outcome.rule.name,
        "status": outcome.status,
        "reason": outcome.reason,
        "checks": outcome.checks,
        "ratio": outcome.ratio,
        "runs": list(outcome.runs),
        "seconds": outcome.seconds,
        "notes": list(outcome.notes),
        "measured": list(outcome.measured),
        "repeat": context.rerun_of(outcome.rule.code),
        "findings": [finding_table(finding) for finding in outcome.findings],
    }


def finding_table(finding: Finding) -> dict[str, Any]:
    """One finding as plain data, with its case as a table."""
    return {**asdict(finding), "case": finding.case.as_table() if finding.case else None}


def _run(name: str, codes: tuple[str, ...], context: Context) -> dict[str, Any]:
    case = context.cases.get(name)
    return {"name": name, "case": case.as_table() if case else None, "wanted_by": list(codes)}


def finite(value: Any) -> Any:
    """Plain data with NaN and infinity as strings."""
    # json writes bare NaN and Infinity, which no strict parser accepts.
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value
