"""Rules of a user's own package: found, listed, explained, judged and reported as fmcheck's own are."""

import json
import subprocess
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from tests.user_rules.conftest import EXAMPLE

SOURCE = (EXAMPLE / "my_rules.py").read_text()
HEAD = "import fmcheck\nfrom fmcheck.rules import exact\n"
Install = Callable[[str], Path]
Shell = Callable[..., subprocess.CompletedProcess[str]]


def said(process: subprocess.CompletedProcess[str]) -> str:
    """Both streams with the line breaks taken out."""
    return " ".join((process.stdout + process.stderr).split())


def test_the_example_is_short() -> None:
    assert len(SOURCE.splitlines()) <= 45


def test_they_are_listed_under_their_package(installed: Install, shell: Shell) -> None:
    site = installed(SOURCE)
    table = said(shell(site, "rules"))
    assert "MY0 rules of my-rules MY001 over-budget" in table
    document = json.loads(shell(site, "rules", "--output-format", "json").stdout)
    mine = {rule["code"]: (rule["family"], rule["package"], rule["kind"]) for rule in document if rule["code"] > "MY"}
    assert mine == {"MY001": ("MY0", "my-rules", "trace"), "MY002": ("MY0", "my-rules", "relation")}
    assert {rule["package"] for rule in document if rule["code"].startswith("FM")} == {"fmcheck"}


def test_they_are_explained_by_code_and_by_name(installed: Install, shell: Shell) -> None:
    site = installed(SOURCE)
    page = shell(site, "explain", "MY001").stdout
    assert "MY001 over-budget  rule of my-rules" in page
    assert "A run calls the network at most twice a step." in page
    assert "compares several runs" in shell(site, "explain", "seed-without-effect").stdout


def test_they_are_selected_and_ignored(installed: Install, shell: Shell) -> None:
    site = installed(SOURCE)
    process = shell(site, "run", "tiny", "--select", "MY", "--output-format", "json")
    document = json.loads(process.stdout)
    assert process.returncode == 0, said(process)
    assert [(o["code"], o["status"]) for o in document["outcomes"]] == [("MY001", "passed"), ("MY002", "passed")]
    process = shell(site, "run", "tiny", "--select", "MY", "--ignore", "over-budget")
    assert "1 rule: 1 passed" in process.stdout, said(process)


def test_their_findings_are_reported_with_their_own_words(installed: Install, shell: Shell) -> None:
    site = installed(SOURCE.replace("2 * run.case.num_steps", "0 * run.case.num_steps"))
    process = shell(site, "run", "tiny", "--select", "MY001")
    assert process.returncode == 1
    text = said(process)
    assert "MY001 over-budget error" in text
    assert "a corrector step that was meant for one experiment stays switched on (fmcheck explain MY001)" in text
    assert "fmcheck run tiny --select MY001" in text


def test_they_are_tests_of_a_pytest_suite(installed: Install, shell: Shell, tmp_path: Path) -> None:
    site = installed(SOURCE)
    (tmp_path / "test_mine.py").write_text('import fmcheck\n\ntest_mine = fmcheck.suite("tiny", select=["MY"])\n')
    process = shell(site, "-v", "-p", "no:cacheprovider", "test_mine.py", module="pytest")
    assert process.returncode == 0, said(process)
    assert "test_mine[MY001-over-budget] PASSED" in said(process)
    assert "2 passed" in process.stdout


def test_they_are_tests_of_the_pytest_plugin(installed: Install, shell: Shell) -> None:
    # Installed as a distribution, the plugin is there already, and pytest refuses it a second time.
    plugin = [] if entry_points(group="pytest11", name="fmcheck") else ["-p", "fmcheck.pytest_plugin"]
    arguments = ("-q", "-p", "no:cacheprovider", "--fmcheck", "tiny", "--fmcheck-select", "MY")
    process = shell(installed(SOURCE), *plugin, *arguments, module="pytest")
    assert process.returncode == 0, said(process)
    assert "2 passed" in process.stdout


RULE = '@fmcheck.rule(code="{code}", name="{name}"{more})\ndef judge(run):\n    """Something holds."""\n    {body}\n'


def rule(code: str = "MY001", name: str = "mine", more: str = "", body: str = 'yield exact(True, "")') -> str:
    return HEAD + RULE.format(code=code, name=name, more=more, body=body)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "messages"),
    [
        ("\nimport nowhere_at_all\n", ["ModuleNotFoundError: No module named 'nowhere_at_all'", "my_rules.py:2)"]),
        ("raise SystemExit(0)\n", ["SystemExit: 0"]),
        (rule(code="FM203"), ["rule code FM203 is taken by wrong-guidance"]),
        (rule(code="FM299"), ["reserved for fmcheck; take letters of your own, as MY001"]),
        (rule(code="my1"), ["rule code 'my1': expected two to four capital letters and three digits"]),
        (rule() + rule(name="other"), ["rule code MY001 is taken by mine of package 'my-rules'"]),
        (rule(name="wrong-guidance"), ["name 'wrong-guidance' is that of FM203"]),
        (rule().replace('"""Something holds."""', "pass"), ["rule MY001 has no docstring"]),
        (rule(more=', needs=("velocty",)'), ["needs: unknown 'velocty'; did you mean 'velocity'?"]),
        (rule(more=', kinds=("sampling",)'), ["kinds: unknown 'sampling'", "known: generate, loss"]),
    ],
)
def test_a_package_that_cannot_be_used_is_a_wrong_declaration(
    installed: Install, shell: Shell, source: str, messages: list[str]
) -> None:
    process = shell(installed(source), "run", "tiny", "--select", "FM101")
    text = said(process)
    assert (process.returncode, process.stdout) == (2, ""), text
    assert "the rules of package 'my-rules' (entry point my_rules = 'my_rules' of group fmcheck.rules)" in text
    assert "fix that package, or take it out with: pip uninstall my-rules" in text
    assert "Traceback" not in text
    for message in messages:
        assert message in text


@pytest.mark.slow
@pytest.mark.parametrize("command", [("rules",), ("explain", "FM203")])
def test_no_command_goes_on_without_a_package_that_cannot_be_used(
    installed: Install, shell: Shell, command: tuple[str, ...]
) -> None:
    process = shell(installed("import nowhere_at_all\n"), *command)
    assert (process.returncode, process.stdout) == (2, "")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "message", "line"),
    [
        (rule(body="yield exact(run.nothing_like_that, '')"), "has no attribute 'nothing_like_that'", 6),
        (rule(body="return [run.nothing_like_that]"), "has no attribute 'nothing_like_that'", 6),
        (rule(body="return None"), "'NoneType' object is not iterable", 3),
        (rule(body="yield True"), "a rule yields fmcheck.Check, from exact() or within(); it yielded True", 3),
        (rule(more=", wishes=lambda plan: {'a': plan.bass}"), "has no attribute 'bass'", 3),
        (rule(more=", wishes=lambda plan: [plan.base]"), "expected names and runs of the plan", 3),
    ],
)
def test_a_rule_that_breaks_is_a_defect_of_its_package(
    installed: Install, shell: Shell, source: str, message: str, line: int
) -> None:
    site = installed(source)
    process = shell(site, "run", "tiny", "--select", "MY001", "--select", "FM204")
    text = said(process)
    assert process.returncode == 3, text
    assert f"rule MY001 mine of package 'my-rules' broke at {site}/my_rules.py:{line} " in text
    assert message in text
    assert "This is a defect of that package, not of fmcheck" in text
    assert "--ignore" in text
    assert "please report" not in text.lower()
    assert "1 passed" in text, "the other rules are judged all the same"


def test_a_rule_that_breaks_fails_its_test_without_our_traceback(
    installed: Install, shell: Shell, tmp_path: Path
) -> None:
    site = installed(rule(body="yield exact(run.nothing_like_that, '')"))
    (tmp_path / "test_mine.py").write_text('import fmcheck\n\ntest_mine = fmcheck.suite("tiny", select=["MY"])\n')
    process = shell(site, "-q", "-p", "no:cacheprovider", "test_mine.py", module="pytest")
    assert process.returncode == 1
    assert "fmcheck: rule MY001 mine of package 'my-rules' broke at" in said(process)
    assert "session.py" not in said(process)
