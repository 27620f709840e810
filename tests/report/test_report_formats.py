"""The reports for machines: JSON and GitHub workflow commands."""

import json

import pytest

from fmcheck import Case, Report
from fmcheck.report.context import Context, cases_of, versions
from fmcheck.report.github import escape_data, escape_property, github_lines
from fmcheck.report.json import report_json
from fmcheck.report.verdict import verdict_of
from fmcheck.rules import all_rules
from fmcheck.subjects.tiny import subject


class TestJson:
    @pytest.fixture
    def document(self, report: Report, context: Context) -> dict:
        text = report_json(report, verdict_of(report, min_checked=9), context)
        return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))

    def test_top(self, document: dict) -> None:
        assert document["schema"] == 1
        assert document["verdict"]["failed"] is True
        assert len(document["verdict"]["reasons"]) == 3
        assert Case.from_table(document["case"]) == subject.case
        assert set(document["versions"]) >= {"fmcheck", "torch", "python", "device", "threads"}
        assert document["counts"] == {
            "passed": 2,
            "failed": 2,
            "expected": 1,
            "skipped": 2,
            "not informative": 2,
            "out of resources": 1,
            "judged": 5,
        }
        assert document["severities"] == {"error": 4, "warning": 1, "note": 0}

    def test_every_finding_is_there(self, document: dict) -> None:
        guidance = document["outcomes"][1]
        assert guidance["code"] == "FM203"
        assert guidance["repeat"] == "fmcheck run tiny --select FM203 --seed 0"
        assert [finding["run"] for finding in guidance["findings"]] == ["base", "wide", "wide"]
        assert Case.from_table(guidance["findings"][0]["case"]) == Case()
        assert document["outcomes"][3]["findings"][0]["case"] is None

    def test_infinity_is_text(self, document: dict) -> None:
        assert document["outcomes"][0]["findings"][0]["ratio"] == "inf"

    def test_runs(self, document: dict) -> None:
        assert [run["name"] for run in document["runs"]] == ["base", "wide"]
        assert document["runs"][1]["case"]["width"] == 512
        assert document["runs"][1]["wanted_by"] == ["FM203", "FM305"]


class TestGithub:
    def test_lines(self, report: Report, context: Context) -> None:
        lines = list(github_lines(report, verdict_of(report, min_checked=9), context))
        assert [line.partition("::")[2].partition("::")[0] for line in lines[:-1]] == [
            "error title=FM109 non-finite",
            "error title=FM203 wrong-guidance",
            "warning title=FM305 uncovered-path",
            "error title=fmcheck stale-expected-failure",
            "error title=fmcheck too-few-rules-judged",
        ]
        assert "%0Acause: guidance is applied twice%0Arepeat: fmcheck run tiny --select FM203" in lines[1]
        assert lines[-1].startswith("fmcheck tiny: failed: 2 rules failed (FM109 FM203); ")
        assert lines[-1].endswith(
            "10 rules: 2 passed, 2 failed, 1 expected failure, 2 skipped, 2 not informative, 1 out of resources"
        )
        assert all("\n" not in line for line in lines)

    def test_escapes(self) -> None:
        assert escape_data("100%\r\nnext: a,b") == "100%25%0D%0Anext: a,b"
        assert escape_property("a:b,c%\n") == "a%3Ab%2Cc%25%0A"


def test_versions_name_the_machine() -> None:
    found = versions("cpu")
    assert found["device"].startswith("cpu (")
    assert int(found["threads"]) >= 1


def test_cases_of_every_run_that_a_rule_may_wish_for() -> None:
    cases = cases_of(subject, all_rules())
    assert cases["base"] == subject.case
    assert cases["one-step"].num_steps == 1
    # Wished for by relation rules, also as a run that must come earlier.
    assert {"other-seed", "again", "other-size"} <= set(cases)
