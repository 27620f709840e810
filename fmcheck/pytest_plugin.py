"""The pytest plugin: `pytest --fmcheck SUBJECT` without any test file, reproduction files as tests, and the counts of
the outcomes in the summary.

pytest loads this module in every run of everybody who has fmcheck installed, so it imports nothing of weight until
it is asked for.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fmcheck.errors import DeclarationError

if TYPE_CHECKING:
    from fmcheck.gate import Gate
    from fmcheck.rules import Rule

__all__ = ["RuleItem", "SubjectCollector"]

_STATUSES = ("passed", "failed", "expected", "skipped", "not informative", "out of resources")
_JUDGED = ("passed", "failed", "expected")
_GATES = pytest.StashKey[list["Gate"]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("fmcheck", "flow-matching checks (fmcheck)")
    group.addoption(
        "--fmcheck",
        action="append",
        default=[],
        metavar="SUBJECT",
        help="check a subject with every rule, one test per rule: tiny, or package.module:attribute; repeatable",
    )
    group.addoption("--fmcheck-select", action="append", default=[], metavar="CODES", help="only these rules, as FM2")
    group.addoption("--fmcheck-ignore", action="append", default=[], metavar="CODES", help="all but these rules")
    group.addoption("--fmcheck-strict", action="store_true", default=None, help="warnings fail too")
    group.addoption("--fmcheck-thorough", action="store_true", default=None, help="judge the costly rules too")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    # Before Hypothesis' own plugin looks for the profile that it was asked for.
    if str(config.getoption("--hypothesis-profile", default="")).startswith("fmcheck-"):
        from fmcheck.fuzz.profiles import register_profiles

        register_profiles()
    # Subjects are loaded here and not at collection: an xdist controller does not collect, and a wrong subject should
    # be one message there, not a crash in every worker.
    targets = config.getoption("--fmcheck")
    if targets:
        config.stash[_GATES] = [_gate(config, target) for target in dict.fromkeys(targets)]


def _gate(config: pytest.Config, target: str) -> "Gate":
    from fmcheck.gate import prepare

    try:
        return prepare(
            target,
            select=_codes(config.getoption("--fmcheck-select")),
            ignore=_codes(config.getoption("--fmcheck-ignore")),
            strict=config.getoption("--fmcheck-strict"),
            thorough=config.getoption("--fmcheck-thorough"),
        )
    except DeclarationError as error:
        raise pytest.UsageError(f"fmcheck: {error}") from error


def _codes(values: list[str]) -> list[str]:
    return [code.strip() for value in values for code in value.split(",") if code.strip()]


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Collect reproduction files, which `fmcheck run --repro-dir` and `fmcheck fuzz --repro-dir` write."""
    if not file_path.name.endswith(".fmcheck.toml"):
        return None
    from fmcheck.pytest_repro import ReproductionFile

    collector: pytest.Collector = ReproductionFile.from_parent(parent, path=file_path)
    return collector


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    # First, so that -k, -m and --lf choose among these items as among any others.
    for gate in config.stash.get(_GATES, []):
        collector = SubjectCollector.from_parent(session, name=gate.target, gate=gate)
        made = list(collector.collect())
        config.hook.pytest_collectreport(report=pytest.CollectReport(collector.nodeid, "passed", None, [*made]))
        items.extend(made)


class SubjectCollector(pytest.Collector):
    """A subject, whose items are the rules. It stands for no file, so it hangs on the session itself."""

    def __init__(self, *, gate: "Gate", **rest: Any) -> None:
        from fmcheck.pytest_suite import Bench
        from fmcheck.ranks.pool import Ranks
        from fmcheck.rules import unasked

        super().__init__(nodeid=_name(gate), **rest)
        self.gate = gate
        without = () if gate.thorough else unasked(gate.select)
        ranks = Ranks(gate.load, gate.nproc)
        self.bench: Bench = Bench(
            gate.target, gate.subject, gate.expected, strict=gate.strict, without=without, ranks=ranks
        )

    def collect(self) -> Iterator["RuleItem"]:
        from fmcheck.pytest_suite import rule_id
        from fmcheck.rules import select_rules

        for rule in select_rules(self.gate.select, self.gate.ignore):
            yield RuleItem.from_parent(self, name=rule_id(rule), rule=rule)


class RuleItem(pytest.Item):
    """One rule, judged on one subject."""

    parent: SubjectCollector

    def __init__(self, *, rule: "Rule", **rest: Any) -> None:
        super().__init__(**rest)
        self.rule = rule

    def runtest(self) -> None:
        self.parent.bench.judge(self.rule, self, rerun=f"pytest --fmcheck {self.parent.gate.target} -k {{code}}")

    def reportinfo(self) -> tuple[str, None, str]:
        return _name(self.parent.gate), None, self.name


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run whose subjects were judged by fewer rules than their gate demands."""
    if session.exitstatus == pytest.ExitCode.OK and any(_shortfalls(session.config)):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Counts of the six outcomes over all fmcheck tests of the run, and the text of warnings that failed nothing."""
    noted = list(_noted(terminalreporter))
    counts = Counter(value for _, name, value in noted if name == "fmcheck")
    if not counts:
        return
    terminalreporter.write_sep("=", "fmcheck")
    for _, name, value in noted:
        if name == "fmcheck-warning":
            terminalreporter.write_line(value)
    words = ", ".join(f"{counts[status]} {status}" for status in _STATUSES)
    terminalreporter.write_line(f"{sum(counts.values())} rules: {words}")
    for shortfall in _shortfalls(terminalreporter.config):
        terminalreporter.write_line(f"FAILED: {shortfall}", red=True)


def _shortfalls(config: pytest.Config) -> Iterator[str]:
    """Why a gate fails although no test did. Says nothing when -k or -m chose among the rules."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    chosen = config.getoption("keyword") or config.getoption("markexpr") or config.getoption("collectonly")
    if reporter is None or chosen or hasattr(config, "workerinput"):
        return
    for gate in config.stash.get(_GATES, []):
        prefix = f"{_name(gate)}::"
        judged = sum(
            nodeid.startswith(prefix) and name == "fmcheck" and value in _JUDGED
            for nodeid, name, value in _noted(reporter)
        )
        if judged < gate.min_checked:
            yield f"{gate.target}: {judged} rules really judged something, and {gate.min_checked} must"


def _noted(reporter: pytest.TerminalReporter) -> Iterator[tuple[str, str, str]]:
    """`(nodeid, name, value)` of everything that the tests noted, from this process and from xdist workers."""
    for key in ("passed", "failed", "skipped", "xfailed"):
        for report in reporter.getreports(key):
            # Set-up and tear-down reports repeat the properties of the call.
            if getattr(report, "when", "") == "call":
                yield from ((report.nodeid, name, str(value)) for name, value in report.user_properties)


def _name(gate: "Gate") -> str:
    return f"fmcheck({gate.target})"
