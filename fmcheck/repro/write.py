"""Writing reproduction files: each is run once more on new model objects, and written only if the finding shows."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from fmcheck.errors import DeclarationError
from fmcheck.files import replace_file
from fmcheck.outcome import Finding, Report
from fmcheck.plan import Plan
from fmcheck.repro.digest import Print, prints_of
from fmcheck.repro.file import Expect, Reproduction, content_name
from fmcheck.repro.heading import heading
from fmcheck.repro.reading import MOST_BYTES, parse
from fmcheck.repro.replay import made_runs
from fmcheck.repro.replayed import ENDINGS, is_repeated
from fmcheck.repro.settings import Settings, found_versions
from fmcheck.repro.target import check_target
from fmcheck.rules import get_rule
from fmcheck.scenario import Call, Scenario
from fmcheck.subject import Subject
from fmcheck.trial import Bench

if TYPE_CHECKING:
    # Brings Hypothesis along, which reading and replaying do without.
    from fmcheck.fuzz import Find

__all__ = ["Written", "scenarios_for", "write", "write_find", "write_report"]


@dataclass(frozen=True)
class Written:
    """What became of a finding's file.

    Attributes:
        path: of the file; None when none was written.
        known: whether it was there already; it is left as it is then.
        reason: why none was written; empty when there is one.
    """

    code: str
    path: Path | None
    known: bool = False
    reason: str = ""


def write(
    folder: Path,
    target: str,
    subject: Subject,
    finding: Finding,
    scenario: Scenario,
    *,
    expect: Expect = "fixed",
    time_limit: float = 600.0,
) -> Written:
    """Write the reproduction of a finding, after its scenario has shown it once more on new model objects.

    What ends a process (CRASH, HANG, MEMORY) is not run again.

    Args:
        folder: made when there is none.
        target: the name by which a replay loads the subject; `subject` is that one.

    Raises:
        DeclarationError: a target that no file can name, a folder that cannot be written to, or a case that the
            subject cannot have.
    """
    check_target(target)
    code = finding.code
    path = folder / content_name(target, code, scenario)
    if path.exists():
        return Written(code, path, known=True)
    also: tuple[str, ...] = ()
    prints: tuple[Print, ...] = ()
    if code not in ENDINGS:
        bench = Bench(subject)
        session = bench.session(scenario)
        try:
            verdict = bench.judged(scenario, session)
            if not is_repeated(verdict, code, finding.severity):
                reason = verdict.refused or "the rule does not fail when the scenario is run on new model objects"
                return Written(code, None, reason=reason)
            finding = next(f for f in verdict.of(code) if f.severity == finding.severity or f.severity == "error")
            also = tuple(other for other in verdict.failing() if other != code)
            prints = tuple(print_ for run in made_runs(session, scenario) for print_ in prints_of(run))
        finally:
            session.forget()
    reproduction = Reproduction(
        target=target,
        finding=replace(finding, run="", case=None),
        scenario=scenario,
        also=also,
        expect=expect,
        time_limit=time_limit,
        versions=found_versions(scenario.last.case.device),
        settings=Settings.now(),
        prints=prints,
    )
    try:
        text = _text(reproduction, subject)
    except DeclarationError as error:
        return Written(code, None, reason=f"no replay would take the file: {error}")
    _save(path, text)
    return Written(code, path)


def _text(reproduction: Reproduction, subject: Subject) -> str:
    """The file's text, read as a replay will read it: what no replay takes is better said now."""
    text = reproduction.as_text(heading(reproduction, subject.case))
    if len(text.encode()) > MOST_BYTES:
        raise DeclarationError(f"expected at most {MOST_BYTES} bytes; the scenario takes {len(text.encode())}")
    parse(text, reproduction.name)
    return text


def _save(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, text.encode())
    except OSError as error:
        raise DeclarationError(f"{path}: cannot be written: {error.strerror or error}") from error


def scenarios_for(report: Report, subject: Subject) -> Iterator[tuple[Finding, list[Scenario]]]:
    """For every rule that failed: its finding in the cheapest run, and the scenarios that may show it, cheapest first.

    A rule about one run is tried in a single call of that run's case; that may pass, where what came before the run
    mattered. Then, and for rules that compare runs, the rule is asked over the plan of the subject's native case.

    Args:
        report: what `fmcheck run` found.
        subject: as it was checked.
    """
    loss = Plan(subject).loss.name
    for outcome in report.outcomes:
        findings = [f for f in outcome.findings if f.severity != "note"] if outcome.status != "expected" else []
        errors = [finding for finding in findings if finding.severity == "error"] or findings
        if not errors:
            continue
        calls = {
            finding: Call(case=finding.case, kind="loss" if finding.run == loss else "generate")
            for finding in errors
            if finding.case is not None
        }
        first = min(calls, key=lambda finding: calls[finding].cost) if calls else errors[0]
        alone = [Scenario((calls[first],))] if calls else []
        yield first, [*alone, Scenario((Call(case=subject.case),), asks=(outcome.rule.code,))]


def write_report(folder: Path, target: str, subject: Subject, report: Report) -> Iterator[Written]:
    """Write a file for every rule that failed in a report of `fmcheck run`.

    Raises:
        DeclarationError: as :func:`write`.
    """
    for finding, scenarios in scenarios_for(report, subject):
        if get_rule(finding.code).on_ranks:
            reason = "a file holds runs in one process; run the rule again with --nproc"
            yield Written(finding.code, None, reason=reason)
            continue
        written = Written(finding.code, None, reason="no scenario was tried")
        for scenario in scenarios:
            written = write(folder, target, subject, finding, scenario)
            if written.path is not None:
                break
        yield written


def write_find(folder: Path, target: str, subject: Subject, found: "Find") -> Iterator[str]:
    """Write the file of what a fuzz campaign found, and yield its path; nothing where the find does not come back.

    Raises:
        DeclarationError: as :func:`write`.
    """
    errors = [finding for finding in found.findings if finding.severity == "error"]
    written = write(folder, target, subject, (errors or list(found.findings))[0], found.scenario)
    if written.path is not None:
        yield str(written.path)
