"""GitHub workflow commands: an annotation for every kind of finding, and a summary line."""

from collections.abc import Iterator

from fmcheck.outcome import Outcome, Report
from fmcheck.report.context import Context
from fmcheck.report.findings import cause_lines, measure, where_of
from fmcheck.report.groups import Group, group_findings
from fmcheck.report.verdict import Verdict, counted, plural

__all__ = ["escape_data", "escape_property", "github_lines"]

_COMMANDS = {"error": "error", "warning": "warning", "note": "notice"}


def github_lines(report: Report, verdict: Verdict, context: Context) -> Iterator[str]:
    """`::error title=FM203 wrong-guidance::…` and so on; the last line is plain and sums up."""
    for outcome in report.outcomes:
        if outcome.status != "expected":
            for group in group_findings(outcome.findings):
                yield _annotation(group, outcome, context)
    for problem in report.problems:
        yield _command("error", "fmcheck stale-expected-failure", problem)
    if verdict.shortfall:
        yield _command("error", "fmcheck too-few-rules-judged", verdict.shortfall)
    state = f"failed: {'; '.join(verdict.reasons)}" if verdict.failed else "clean"
    yield f"fmcheck {context.target}: {state}. {plural(len(report.outcomes), 'rule')}: {counted(verdict)}"


def escape_data(text: str) -> str:
    """The message of a workflow command: percent signs and line ends are escaped."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def escape_property(text: str) -> str:
    """The value of a property of a workflow command: colons and commas are escaped too."""
    return escape_data(text).replace(":", "%3A").replace(",", "%2C")


def _annotation(group: Group, outcome: Outcome, context: Context) -> str:
    first = group.first
    lines = [
        first.message,
        f"where: {where_of(group)}",
        measure(group),
        f"case: {context.shapes(first.case)}",
        *(f"cause: {line}" for line in cause_lines(group, outcome.rule)),
        f"repeat: {context.rerun_of(first.code)}",
    ]
    return _command(_COMMANDS[first.severity], str(outcome.rule), "\n".join(line for line in lines if line))


def _command(kind: str, title: str, message: str) -> str:
    return f"::{kind} title={escape_property(title)}::{escape_data(message)}"
