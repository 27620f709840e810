"""A run's JSON: what is read from it, and which key an error names."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fmcheck.case import Case
from fmcheck.errors import DeclarationError
from fmcheck.experiment import RunRecord, read_run
from fmcheck.outcome import Finding, Outcome, Report
from fmcheck.report.context import Context
from fmcheck.report.json import SCHEMA, report_json
from fmcheck.report.verdict import verdict_of
from fmcheck.rules import all_rules
from fmcheck.subjects import load_subject


def test_what_the_report_writes_is_read(tmp_path: Path) -> None:
    """The two ends of the format, which know nothing of each other, held together."""
    rule = all_rules()[0]
    finding = Finding(code=rule.code, name=rule.name, severity="error", message="off", run="base", case=Case())
    outcome = Outcome(rule=rule, status="failed", findings=(finding,), checks=3, ratio=math.inf)
    report = Report(subject="tiny", outcomes=(outcome,), runs={}, calls=2, generate_seconds=0.5, seconds=1.5)
    context = Context(target="tiny", subject=load_subject("tiny"), rerun="fmcheck run tiny --select {code}")
    path = tmp_path / "run.json"
    path.write_text(report_json(report, verdict_of(report), context), encoding="utf-8")
    record = read_run(path)
    assert (record.subject, record.failed, record.generate_calls, record.seconds) == ("tiny", True, 2, 1.5)
    assert record.counts["failed"] == record.counts["judged"] == record.severities["error"] == 1
    assert record.with_status("failed")[rule.code].message == "off"
    assert record.outcomes[0].ratio == math.inf
    assert record.outcomes[0].rule == f"{rule.code} {rule.name}"
    assert record.case == Case().as_table()
    assert SCHEMA == 1


def test_the_first_error_speaks_for_a_rule(run_table: dict[str, Any]) -> None:
    record = RunRecord.from_table(run_table)
    assert [outcome.message for outcome in record.outcomes] == ["", *["came out 3.5 | expected 2.5"] * 2, ""]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings_of_shells(run_table: dict[str, Any], tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "run.json"
    path.write_text(json.dumps({**run_table, "subject": "流"}, ensure_ascii=False), encoding=encoding)
    assert read_run(path).subject == "流"


@pytest.mark.parametrize("key", ["schema", "subject", "case", "verdict", "counts", "severities", "outcomes", "seconds"])
def test_missing_keys(run_table: dict[str, Any], key: str) -> None:
    del run_table[key]
    with pytest.raises(DeclarationError) as caught:
        RunRecord.from_table(run_table, "run.json")
    assert str(caught.value) == f"run.json: no key {key!r}; expected what `fmcheck run --output-format json` prints"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": 2}, "run.json: schema: expected 1, which this fmcheck reads; found 2"),
        ({"schema": True}, "run.json: schema: expected an integer; found True"),
        ({"subject": None}, "run.json: subject: expected a string; found None"),
        ({"case": []}, "run.json: case: expected an object; found an array"),
        ({"verdict": {"failed": False}}, "run.json: verdict: no key 'reasons'"),
        ({"verdict": {"failed": 1, "reasons": []}}, "run.json: verdict: failed: expected true or false; found 1"),
        ({"counts": {"passed": 1.5}}, "run.json: counts: passed: expected an integer; found 1.5"),
        ({"outcomes": {}}, "run.json: outcomes: expected an array; found an object"),
        ({"outcomes": [3]}, "run.json: outcomes[0]: expected an object"),
        ({"outcomes": [{"findings": []}]}, "run.json: outcomes[0]: no key 'code'"),
        ({"outcomes": [{"findings": [{}]}]}, "run.json: outcomes[0]: findings[0]: no key 'severity'"),
        ({"seconds": "soon"}, "run.json: seconds: expected a number; found 'soon'"),
        ({"seconds": None}, "run.json: seconds: expected a number; found None"),
        ({"seconds": False}, "run.json: seconds: expected a number; found False"),
    ],
)
def test_other_types(run_table: dict[str, Any], changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DeclarationError) as caught:
        RunRecord.from_table({**run_table, **changes}, "run.json")
    assert str(caught.value).startswith(message)


def test_numbers_beyond_a_float(run_table: dict[str, Any]) -> None:
    assert RunRecord.from_table({**run_table, "seconds": 10**400}).seconds == math.inf


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected the JSON that `fmcheck run --output-format json` prints; this is no JSON: Expecting value"),
        ("{", "this is no JSON"),
        ("\udcff", "this is no JSON"),
        ("[" * 100_000, "this is no JSON"),
        ("9" * 5_000, "this is no JSON"),
        ("[]", "expected an object as `fmcheck run --output-format json` prints it; found an array"),
        ("null", "expected an object"),
    ],
)
def test_no_json_of_a_run(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "run.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(DeclarationError) as caught:
        read_run(path)
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")


def test_no_file(write_run: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(DeclarationError, match=r"none\.json: cannot be read: No such file"):
        read_run(tmp_path / "none.json")
    with pytest.raises(DeclarationError, match="cannot be read: Is a directory"):
        read_run(write_run().parent)
