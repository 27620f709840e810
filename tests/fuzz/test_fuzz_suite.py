"""`fmcheck.suite(..., fuzz=...)`: one more test, whose campaign goes as far as the profile or the limits say."""

from collections.abc import Callable

import pytest

RunPytest = Callable[..., pytest.RunResult]
SELECT = "select=['FM101', 'FM203', 'FM304']"


@pytest.fixture
def suite_file(project, pytester: pytest.Pytester, run_pytest: RunPytest) -> Callable[[str], None]:  # type: ignore[no-untyped-def]
    """A test file with a suite, and the toys beside it."""

    def write(arguments: str) -> None:
        for name in ("toy.py", "toy_fuzz.py"):
            (pytester.path / name).write_text((project / name).read_text())
        pytester.makepyfile(
            test_gate="import fmcheck, toy, toy_fuzz\n"
            "from fmcheck.fuzz import Limits\nfrom fmcheck.run import Expected\n"
            f"test_mine = fmcheck.suite({arguments})\n"
        )

    return write


def test_a_clean_subject_passes(suite_file: Callable[[str], None], run_pytest: RunPytest) -> None:
    suite_file(f"toy.subject, {SELECT}, fuzz=Limits(examples=15, seed=1)")
    result = run_pytest("-v")
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines(["*test_mine[[]fuzz[]]*PASSED*"])


def test_a_fault_that_the_plan_misses_fails_with_its_smallest_case(
    suite_file: Callable[[str], None], run_pytest: RunPytest
) -> None:
    """By its name, so in a process of its own."""
    suite_file(f"'toy_fuzz:squares', {SELECT}, fuzz=Limits(examples=40, seed=1)")
    result = run_pytest("-v", "-k", "fuzz and not FM101 and not FM304")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        [
            "*test_mine[[]fuzz[]]*FAILED*",
            "FM203 wrong-guidance  smallest case",
            "  observed the loop behaves as *",
            "  case     batch 1  16x16  steps *",
        ]
    )
    result.stdout.no_fnmatch_line("*Traceback*")
    result.stdout.no_fnmatch_line("*pytest_suite.py:*: Failed*")


def test_expected_failures_are_no_failures(suite_file: Callable[[str], None], run_pytest: RunPytest) -> None:
    limits = "fuzz=Limits(examples=12, seed=1, shrink_seconds=0.3)"
    suite_file(f"toy.broken, select=['FM203'], expected={{'FM203': 'known'}}, {limits}")
    run_pytest().assert_outcomes(passed=1, xfailed=1)
    suite_file(f"toy.broken, select=['FM203'], expected={{'FM203': Expected('known', 'another text')}}, {limits}")
    run_pytest().assert_outcomes(failed=2)


def test_the_profile_of_the_test_run_says_how_far(suite_file: Callable[[str], None], run_pytest: RunPytest) -> None:
    """Registered before Hypothesis' own plugin looks for it; 50 examples, which find the fault of square latents."""
    suite_file("toy_fuzz.squares, select=['FM203'], fuzz=True")
    result = run_pytest("--hypothesis-profile", "fmcheck-gate", "-k", "fuzz and not FM203")
    result.stdout.no_fnmatch_line("*Profile*fmcheck-gate*is not registered*")
    result.stdout.fnmatch_lines(["*FM203 wrong-guidance  smallest case*"])
    assert result.ret == pytest.ExitCode.TESTS_FAILED


def test_without_fuzz_there_is_no_such_test(suite_file: Callable[[str], None], run_pytest: RunPytest) -> None:
    suite_file(f"toy.subject, {SELECT}")
    result = run_pytest("--collect-only", "-q")
    result.stdout.no_fnmatch_line("*[[]fuzz[]]*")


def test_a_model_that_cannot_be_built_fails_with_one_line(
    suite_file: Callable[[str], None], run_pytest: RunPytest
) -> None:
    suite_file("toy_fuzz.unbuildable, select=['FM203'], fuzz=Limits(examples=2)")
    result = run_pytest("-k", "fuzz")
    result.stdout.fnmatch_lines(["fmcheck: subject 'no toy': build raised RuntimeError: no checkpoint*"])
