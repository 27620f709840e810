"""Writing: every kind of finding of a run, each once, none that does not come back."""

from dataclasses import replace
from pathlib import Path

import pytest

from fmcheck.errors import DeclarationError
from fmcheck.fuzz import Find
from fmcheck.outcome import Finding, Report
from fmcheck.repro import parse, read, replay, scenarios_for, write, write_find, write_report
from fmcheck.repro.file import SUFFIX
from fmcheck.repro.target import subject_of
from fmcheck.run import check
from fmcheck.scenario import Call, Scenario
from fmcheck.subject import Subject
from fmcheck.trial import CRASH, failure
from tests.cli import toy_subject
from tests.repro import examples

SCENARIO = Scenario((examples.CALL,))


def subject_and_report(target: str, *codes: str) -> tuple[Subject, Report]:
    subject = subject_of(target)
    return subject, check(subject, select=codes)


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class TestOne:
    def test_is_confirmed_and_complete(self, tmp_path: Path) -> None:
        written = write(tmp_path / "new" / "folder", examples.BROKEN, toy_subject.broken, examples.FINDING, SCENARIO)
        assert written.path is not None
        assert (written.code, written.known, written.reason) == ("FM203", False, "")
        file = read(written.path)
        assert written.path.name == file.name
        assert "behaves as u + 4.5" in file.finding.message, "what it shows now, not what was said"
        assert file.finding.ratio is not None
        assert [print_.name for print_ in file.prints][-1] == "result"
        assert set(file.versions) == {"fmcheck", "torch", "python", "platform", "device", "cpu_kernels"}
        assert files_in(written.path.parent) == [file.name], "no half-written file is left"

    def test_twice_is_one_file(self, tmp_path: Path) -> None:
        first = write(tmp_path, examples.BROKEN, toy_subject.broken, examples.FINDING, SCENARIO)
        assert first.path is not None
        first.path.write_text("edited by hand")
        again = write(tmp_path, examples.BROKEN, toy_subject.broken, examples.FINDING, SCENARIO)
        assert (again.path, again.known) == (first.path, True)
        assert first.path.read_text() == "edited by hand"

    def test_what_does_not_come_back_is_not_written(self, tmp_path: Path) -> None:
        written = write(tmp_path, examples.CLEAN, toy_subject.subject, examples.FINDING, SCENARIO)
        assert (written.path, files_in(tmp_path)) == (None, [])
        assert written.reason == "the rule does not fail when the scenario is run on new model objects"

    def test_a_warning_does_not_confirm_an_error(self, tmp_path: Path) -> None:
        subject = toy_subject.subject.but(spec=replace(toy_subject.subject.spec, grid_clamp=1e-3, grid="uniform"))
        error = replace(examples.FINDING, code="FM305")
        assert write(tmp_path, examples.CLEAN, subject, error, SCENARIO).path is None

    def test_a_prompt_that_no_file_can_hold(self, tmp_path: Path) -> None:
        scenario = Scenario((examples.CALL.but(prompts=("\ud800", "b")),))
        written = write(tmp_path, examples.BROKEN, toy_subject.broken, examples.FINDING, scenario)
        assert written.path is None
        assert "no replay would take the file" in written.reason

    def test_what_ends_a_process_is_not_run_again(self, tmp_path: Path) -> None:
        finding = failure(CRASH, "the process died with SIGABRT", SCENARIO).findings[0]
        target = "tests.repro.examples:aborting"
        written = write(tmp_path, target, examples.aborting, finding, SCENARIO, time_limit=30.0)
        assert written.path is not None
        file = read(written.path)
        assert (file.code, file.prints, file.time_limit) == (CRASH, (), 30.0)

    def test_a_target_that_no_file_can_name(self, tmp_path: Path) -> None:
        with pytest.raises(DeclarationError, match="expected a subject such as tiny"):
            write(tmp_path, "my toy", toy_subject.broken, examples.FINDING, SCENARIO)

    def test_a_folder_that_is_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(DeclarationError, match="cannot be written: "):
            write(tmp_path / "file", examples.BROKEN, toy_subject.broken, examples.FINDING, SCENARIO)

    def test_expectation_of_a_fixture(self, tmp_path: Path) -> None:
        written = write(tmp_path, examples.BROKEN, toy_subject.broken, examples.FINDING, SCENARIO, expect="reproduced")
        assert written.path is not None
        assert read(written.path).expect == "reproduced"


class TestReport:
    def test_a_file_for_every_rule(self, tmp_path: Path) -> None:
        subject, report = subject_and_report(examples.BROKEN)
        failing = {f.code for f in report.findings if f.severity != "note"}
        written = list(write_report(tmp_path, examples.BROKEN, subject, report))
        assert {w.code for w in written} == failing >= {"FM203", "FM207"}
        assert all(w.path is not None for w in written), [w.reason for w in written]
        for one in written:
            assert replay(read(one.path)).status == "reproduced"

    def test_the_cheapest_run_shows_a_trace_rule(self) -> None:
        subject, report = subject_and_report(examples.BROKEN, "FM203")
        ((finding, scenarios),) = scenarios_for(report, subject)
        costs = [Call(case=other.case).cost for other in report.findings]
        assert scenarios[0].calls == (Call(case=finding.case),)
        assert scenarios[0].cost == min(costs) < max(costs)
        assert [s.asks for s in scenarios] == [(), ("FM203",)]

    def test_a_relation_is_asked_for(self) -> None:
        subject, report = subject_and_report(examples.BROKEN, "FM207")
        ((_, scenarios),) = scenarios_for(report, subject)
        assert [(s.asks, s.last.case) for s in scenarios] == [(("FM207",), subject.case)]

    def test_of_the_loss(self, tmp_path: Path) -> None:
        target = "mutant:target_negated"
        subject, report = subject_and_report(target, "FM9")
        kinds = {w.code: read(w.path).scenario.last.kind for w in write_report(tmp_path, target, subject, report)}
        assert "loss" in kinds.values()

    def test_expected_failures_and_clean_reports_write_nothing(self) -> None:
        subject, report = subject_and_report(examples.CLEAN, "FM203")
        assert list(scenarios_for(report, subject)) == []

    def test_what_comes_back_nowhere_is_said(self, tmp_path: Path) -> None:
        _, report = subject_and_report(examples.BROKEN, "FM203")
        (written,) = write_report(tmp_path, examples.CLEAN, toy_subject.subject, report)
        assert (written.path, files_in(tmp_path)) == (None, [])
        assert written.reason


def test_a_find_of_a_campaign(tmp_path: Path) -> None:
    warning = replace(examples.FINDING, severity="warning")
    found = Find(
        code="FM203",
        scenario=SCENARIO,
        findings=(warning, examples.FINDING),
        first=SCENARIO,
        example=3,
        shrunk=True,
    )
    (path,) = write_find(tmp_path, examples.BROKEN, toy_subject.broken, found)
    assert path.endswith(SUFFIX)
    assert read(Path(path)).finding.severity == "error"
    assert list(write_find(tmp_path / "other", examples.CLEAN, toy_subject.subject, found)) == []


def test_the_header_is_there_and_the_rest_is_plain(tmp_path: Path) -> None:
    written = write(tmp_path, examples.BROKEN, toy_subject.broken, examples.FINDING, SCENARIO)
    assert written.path is not None
    text = written.path.read_text(encoding="utf-8")
    lines = text.splitlines()
    assert lines[1].startswith("# EXP CONFIG META")
    assert [line for line in lines if line.startswith("# KEY_DIFFS")]
    assert parse(text) == read(written.path)
    assert isinstance(parse(text).finding, Finding)
