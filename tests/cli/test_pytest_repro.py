"""pytest collects reproduction files: they pass once their finding is what they expect."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fmcheck.repro import write
from fmcheck.scenario import Call, Scenario
from tests.cli import toy_subject
from tests.cli.conftest import PLUGIN
from tests.repro import examples
from tests.repro.examples import reproduction

RunPytest = Callable[..., pytest.RunResult]
SCENARIO = Scenario((Call(case=toy_subject.subject.case),))


def record(folder: Path, expect: str = "fixed") -> Path:
    """A file about the project's own `toy:broken`."""
    written = write(folder, "toy:broken", toy_subject.broken, examples.FINDING, SCENARIO, expect=expect)  # type: ignore[arg-type]
    assert written.path is not None
    return written.path


def test_fails_while_it_is_reproduced(pytester: pytest.Pytester, run_pytest: RunPytest) -> None:
    path = record(pytester.path / "tests" / "repro")
    result = run_pytest("-v")
    result.assert_outcomes(failed=1)
    shown = path.relative_to(pytester.path)
    result.stdout.fnmatch_lines(
        [
            f"{shown}::FM203-wrong-guidance FAILED*",
            "expected fixed; found reproduced",
            f"reproduced  FM203 wrong-guidance  {shown}",
            "  by       bit-identical, 5 tensors",
            "  recorded FM203 the loop behaves as *",
            f"  replay   fmcheck replay {shown}",
        ]
    )
    result.stdout.no_fnmatch_line("*Traceback*")
    result.stdout.no_fnmatch_line("*pytest_repro.py:*: Failed*")


def test_passes_once_it_is_fixed(pytester: pytest.Pytester, run_pytest: RunPytest) -> None:
    record(pytester.path)
    source = (pytester.path / "toy.py").read_text()
    (pytester.path / "toy.py").write_text(source.replace("Toy(weight_error=1.0)", "Toy()"))
    run_pytest().assert_outcomes(passed=1)


def test_a_fixture_passes_while_it_is_caught(pytester: pytest.Pytester, run_pytest: RunPytest) -> None:
    record(pytester.path, expect="reproduced")
    run_pytest().assert_outcomes(passed=1)


def test_another_failure_fails_both(pytester: pytest.Pytester, run_pytest: RunPytest) -> None:
    for expect in ("fixed", "reproduced"):
        text = reproduction(target="toy:crashing", expect=expect).as_text()
        (pytester.path / f"{expect}.fmcheck.toml").write_text(text)
    result = run_pytest()
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["expected reproduced; found different failure"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("schema = 7", "schema: expected 1, which this fmcheck reads; found 7"),
        ("rm -rf /", "expected TOML; found none*"),
        (reproduction(target="os:abort").as_text(), "expected a module that declares a subject; found 'os'*"),
    ],
)
def test_a_bad_file_is_a_collection_error(
    pytester: pytest.Pytester, run_pytest: RunPytest, content: str, message: str
) -> None:
    (pytester.path / "bad.fmcheck.toml").write_text(content)
    result = run_pytest()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([f"fmcheck: *bad.fmcheck.toml: {message}"])
    result.stdout.no_fnmatch_line("*Traceback*")


def test_a_subject_that_is_gone_fails(pytester: pytest.Pytester, run_pytest: RunPytest) -> None:
    (pytester.path / "old.fmcheck.toml").write_text(reproduction(target="toy:renamed").as_text())
    result = run_pytest()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["fmcheck: old.fmcheck.toml: subject 'toy:renamed': toy has no 'renamed'*"])
    result.stdout.no_fnmatch_line("*Traceback*")


def test_a_device_that_is_not_there_is_skipped(pytester: pytest.Pytester, run_pytest: RunPytest) -> None:
    elsewhere = Scenario((SCENARIO.last.but(device="cuda:99"),))
    (pytester.path / "gpu.fmcheck.toml").write_text(reproduction(target="toy:broken", scenario=elsewhere).as_text())
    result = run_pytest("-rs")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["SKIPPED*recorded on cuda:99, which this machine does not have"])


def test_names_and_keywords_select(pytester: pytest.Pytester, run_pytest: RunPytest) -> None:
    path = record(pytester.path)
    (pytester.path / "other.toml").write_text("")
    pytester.makepyfile(test_other="def test_other(): pass")
    run_pytest("-k", "FM203").assert_outcomes(failed=1, deselected=1)
    run_pytest(path.name).assert_outcomes(failed=1)
    run_pytest("test_other.py").assert_outcomes(passed=1)


def test_nothing_of_weight_is_imported_without_such_a_file(tmp_path: Path, environment: dict[str, str]) -> None:
    (tmp_path / "test_light.py").write_text(
        "import sys\ndef test_light():\n    assert not {'torch', 'fmcheck.repro'} & set(sys.modules)\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", *PLUGIN, str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert "1 passed" in done.stdout, done.stdout
