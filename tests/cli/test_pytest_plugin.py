"""`fmcheck.suite` and `pytest --fmcheck`: ids, outcomes, selection, configuration, summary."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import fmcheck
from fmcheck.errors import DeclarationError

RunPytest = Callable[..., pytest.RunResult]


def suite_file(pytester: pytest.Pytester, arguments: str) -> None:
    pytester.makepyfile(test_gate=f"import fmcheck, toy\ntest_mine = fmcheck.suite({arguments})\n")


@pytest.mark.usefixtures("toy_rules")
class TestSuite:
    def test_every_outcome(self, pytester: pytest.Pytester, run_pytest: RunPytest) -> None:
        suite_file(pytester, "'toy:subject', select=['TY'], ignore=['TY008']")
        result = run_pytest("-v", "-rs")
        result.assert_outcomes(passed=3, failed=1, skipped=3)
        result.stdout.fnmatch_lines(
            [
                "*test_mine[[]TY001-always-right[]]*PASSED*",
                "*test_mine[[]TY002-always-wrong[]]*FAILED*",
                "*test_mine[[]TY003-half-wrong[]]*PASSED*",
                "TY002 always-wrong  error",
                "  property The property of always-wrong holds.",
                "  where    run base, step 1; * more like it*",
                "  observed came out 3.5, expected 2.5",
                "           error 1, allowed 0.5: 2 times the bound",
                "  repeat   pytest 'test_gate.py::test_mine' -k TY002",
                "TY003 half-wrong  warning",
                "7 rules: 3 passed, 1 failed, 0 expected, 1 skipped, 1 not informative, 1 out of resources",
                "*TY005 not informative: every velocity is zero*",
                "*TY006 out of resources: run base: no 3 TiB here*",
                "*TY007 the subject declares no 'pad'*",
            ]
        )
        result.stdout.no_fnmatch_line("*Traceback*")
        result.stdout.no_fnmatch_line("*pytest_suite.py:*: Failed*")

    def test_a_code_selects_with_k(self, pytester: pytest.Pytester, run_pytest: RunPytest) -> None:
        suite_file(pytester, "toy.subject, select=['TY']")
        run_pytest("-k", "TY001 or half-wrong").assert_outcomes(passed=2, deselected=6)

    def test_expected_and_stale(self, pytester: pytest.Pytester, run_pytest: RunPytest) -> None:
        suite_file(pytester, "toy.factory, select=['TY001', 'TY002'], expected={'TY001': 'old', 'TY002': 'new'}")
        result = run_pytest("-rx")
        result.assert_outcomes(failed=1, xfailed=1)
        result.stdout.fnmatch_lines(
            [
                "stale expected failure: TY001 always-right: expected to fail (old) but passed; remove the entry",
                "2 rules: 0 passed, 1 failed, 1 expected, 0 skipped*",
                "XFAIL *TY002-always-wrong* - new",
            ]
        )

    def test_strict_fails_warnings(self, pytester: pytest.Pytester, run_pytest: RunPytest) -> None:
        suite_file(pytester, "toy.subject, select=['TY003'], strict=True")
        run_pytest().assert_outcomes(failed=1)

    def test_one_session_for_all(self, pytester: pytest.Pytester, run_pytest: RunPytest) -> None:
        pytester.makepyfile(
            test_gate="""
            import fmcheck, toy
            built = []
            def build(case):
                built.append(case)
                return toy.Toy()
            test_mine = fmcheck.suite(toy.make("counted", build=build), select=["FM203", "TY001"])
            def test_built_once():
                assert len(built) == 1
            """
        )
        run_pytest().assert_outcomes(passed=3)

    def test_a_model_that_cannot_be_built_fails(self, pytester: pytest.Pytester, run_pytest: RunPytest) -> None:
        suite_file(pytester, "toy.unbuildable, select=['TY001']")
        result = run_pytest()
        result.assert_outcomes(failed=1)
        result.stdout.fnmatch_lines(["fmcheck: subject 'no toy': build raised TypeError*"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"subject": 3}, "expected a Subject, a function that makes one, or a string; found int"),
        ({"subject": "tiny", "select": ["FM0"]}, "no rule code starts with 'FM0'"),
        ({"subject": "tiny", "expected": {"FM399": "x"}}, "no rule 'FM399'"),
        ({"subject": "tiny", "expected": {"FM203": " "}}, "expected failure FM203 has no reason"),
        ({"subject": "tiny", "dtype": "float31"}, "Case.dtype"),
    ],
)
def test_suite_refuses_at_once(arguments: dict, message: str) -> None:
    with pytest.raises(DeclarationError, match=message):
        fmcheck.suite(**arguments)


@pytest.mark.usefixtures("toy_rules")
class TestOption:
    def test_without_any_test_file(self, run_pytest: RunPytest) -> None:
        result = run_pytest("--fmcheck", "toy:subject", "--fmcheck-select", "TY001,TY002", "-v")
        result.assert_outcomes(passed=1, failed=1)
        result.stdout.fnmatch_lines(
            [
                "*collected 2 items",
                "fmcheck(toy:subject)::TY001-always-right PASSED*",
                "fmcheck(toy:subject)::TY002-always-wrong FAILED*",
                "  repeat   pytest --fmcheck toy:subject -k TY002",
                "2 rules: 1 passed, 1 failed, 0 expected, 0 skipped, 0 not informative, 0 out of resources",
            ]
        )
        assert result.ret == pytest.ExitCode.TESTS_FAILED

    def test_beside_test_files_and_testpaths(self, pytester: pytest.Pytester, run_pytest: RunPytest) -> None:
        (pytester.path / "pyproject.toml").write_text("[tool.pytest.ini_options]\ntestpaths = ['checks']\n")
        (pytester.path / "checks").mkdir()
        (pytester.path / "checks" / "test_own.py").write_text("def test_own(): pass\n")
        option = ("--fmcheck", "toy:subject", "--fmcheck-select", "TY001")
        run_pytest(*option).assert_outcomes(passed=2)
        run_pytest(*option, "checks/test_own.py").assert_outcomes(passed=2)
        run_pytest(*option, "-k", "TY001").assert_outcomes(passed=1, deselected=1)
        run_pytest().assert_outcomes(passed=1)

    def test_several_subjects(self, run_pytest: RunPytest) -> None:
        result = run_pytest("--fmcheck=toy:subject", "--fmcheck=toy:broken", "--fmcheck-select=FM203,TY001", "-v")
        result.assert_outcomes(passed=3, failed=1)
        result.stdout.fnmatch_lines(["fmcheck(toy:broken)::FM203-wrong-guidance FAILED*"])

    def test_configuration(self, pytester: pytest.Pytester, run_pytest: RunPytest) -> None:
        (pytester.path / "pyproject.toml").write_text(
            "[tool.fmcheck]\nselect = ['TY']\nignore = ['TY004', 'TY005', 'TY006', 'TY007', 'TY008']\nstrict = true\n"
            "[tool.fmcheck.expected-failures]\nTY002 = 'known'\n"
        )
        run_pytest("--fmcheck", "toy:subject").assert_outcomes(passed=1, xfailed=1, failed=1)

    def test_strict_and_ignore(self, run_pytest: RunPytest) -> None:
        option = ("--fmcheck", "toy:subject", "--fmcheck-select", "TY001,TY003", "--fmcheck-ignore", "TY001")
        result = run_pytest(*option)
        result.assert_outcomes(passed=1)
        result.stdout.fnmatch_lines(["TY003 half-wrong  warning"])
        run_pytest(*option, "--fmcheck-strict").assert_outcomes(failed=1)

    def test_nothing_passes_because_nobody_looked(self, pytester: pytest.Pytester, run_pytest: RunPytest) -> None:
        option = ("--fmcheck", "toy:subject", "--fmcheck-select", "TY001,TY005")
        assert run_pytest(*option).ret == pytest.ExitCode.OK
        (pytester.path / "pyproject.toml").write_text("[tool.fmcheck]\nmin-checked = 2\n")
        result = run_pytest(*option)
        assert result.ret == pytest.ExitCode.TESTS_FAILED
        result.stdout.fnmatch_lines(["FAILED: toy:subject: 1 rules really judged something, and 2 must"])
        # Whoever chooses by hand knows that it is a part.
        assert run_pytest(*option, "-k", "TY001").ret == pytest.ExitCode.OK

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--fmcheck", "toy:subjekt"], "*fmcheck: subject 'toy:subjekt': toy has no 'subjekt'; did you mean*"),
            (["--fmcheck", "toy:subject", "--fmcheck-select", "TZ"], "*no rule code starts with 'TZ'*"),
        ],
    )
    def test_wrong_usage(self, run_pytest: RunPytest, arguments: list[str], message: str) -> None:
        result = run_pytest(*arguments)
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        result.stderr.fnmatch_lines([message])


class TestProcess:
    def run(self, folder: Path, environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
        from importlib.metadata import entry_points

        plugin = [] if entry_points(group="pytest11", name="fmcheck") else ["-p", "fmcheck.pytest_plugin"]
        command = [sys.executable, "-m", "pytest", *plugin, "-p", "no:cacheprovider", *arguments]
        environment = {**environment, "COLUMNS": "100", "PYTEST_ADDOPTS": ""}
        environment = {key: value for key, value in environment.items() if not key.startswith("PYTEST_XDIST")}
        return subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
        )

    def test_the_plugin_alone_does_not_import_torch(self, tmp_path: Path, environment: dict[str, str]) -> None:
        (tmp_path / "test_light.py").write_text("import sys\ndef test_light(): assert 'torch' not in sys.modules\n")
        # jaxtyping's own plugin is not at stake here.
        result = self.run(tmp_path, environment, "-p", "no:jaxtyping", "-q")
        assert result.returncode == 0, result.stdout
        assert "rules:" not in result.stdout

    def test_xdist(self, project: Path, environment: dict[str, str]) -> None:
        (project / "test_gate.py").write_text(
            "import fmcheck\ntest_mine = fmcheck.suite('toy:subject', select=['FM201', 'FM203'])\n"
        )
        result = self.run(project, environment, "-n", "2", "--fmcheck", "toy:broken", "--fmcheck-select", "FM203")
        assert result.returncode == 1, result.stdout + result.stderr
        assert "3 rules: 2 passed, 1 failed" in result.stdout
        assert "FAILED fmcheck(toy:broken)::FM203-wrong-guidance" in result.stdout
        assert "test_mine" not in result.stdout.partition("short test summary")[2]


def test_public_names() -> None:
    assert len(fmcheck.__all__) == 12
    assert callable(fmcheck.suite)
    assert set(fmcheck.__all__) <= set(dir(fmcheck))
    for name in fmcheck.__all__:
        assert getattr(fmcheck, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'sweet'; its public names are Case, Check"):
        fmcheck.sweet  # noqa: B018


def test_public_names_survive_any_order_of_imports(environment: dict[str, str]) -> None:
    code = "import fmcheck.pytest_suite, fmcheck.run, fmcheck.rules, fmcheck; assert callable(fmcheck.suite)"
    subprocess.run([sys.executable, "-c", code], env={**os.environ, **environment}, check=True, timeout=300)
