"""`--as-pytest`: valid code whatever the file holds, which fails as long as the finding is there."""

import ast
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from fmcheck.repro import Reproduction, as_pytest
from fmcheck.repro.as_pytest import code_of
from fmcheck.scenario import Call, Scenario
from fmcheck.trial import CRASH, failure
from tests.cli import toy_subject
from tests.repro import examples
from tests.repro.examples import reproduction

ROOT = Path(__file__).parents[2]


def functions_of(*reproductions: Reproduction) -> dict[str, Any]:
    """The functions of the module, by name."""
    space: dict[str, Any] = {}
    exec(compile(as_pytest(reproductions), "printed", "exec"), space)
    return {name: value for name, value in space.items() if name.startswith("test_")}


@given(examples.reproductions)
def test_valid_whatever_was_found(any_one: Reproduction) -> None:
    """Nothing of the file becomes code: the module has the statements that it always has."""
    tree = ast.parse(as_pytest([any_one]))
    (function,) = (node for node in tree.body if isinstance(node, ast.FunctionDef))
    kinds = [type(node) for node in function.body]
    assert kinds == [ast.Assign, ast.Assign, ast.Assign, ast.Assert, ast.Assert]


@given(examples.reproductions)
def test_the_scenario_comes_back_equal(any_one: Reproduction) -> None:
    space = {"Scenario": Scenario, "Call": Call, "Case": type(any_one.scenario.last.case)}
    assert eval(code_of(any_one.scenario), space) == any_one.scenario


@pytest.fixture
def at_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.mark.usefixtures("at_root")
class TestRun:
    def test_fails_while_the_finding_is_there(self) -> None:
        (test,) = functions_of(reproduction()).values()
        with pytest.raises(AssertionError, match="FM203 wrong-guidance: came out 3.5, expected 2.5"):
            test()

    def test_passes_once_it_is_fixed(self) -> None:
        (test,) = functions_of(reproduction(target=examples.CLEAN)).values()
        test()

    def test_of_a_fixture(self) -> None:
        (test,) = functions_of(reproduction(expect="reproduced")).values()
        test()

    def test_does_not_pass_because_nobody_looked(self) -> None:
        finding = replace(examples.FINDING, code="FM401")
        (test,) = functions_of(reproduction(target=examples.CLEAN, finding=finding)).values()
        with pytest.raises(AssertionError, match="FM401 compared nothing"):
            test()

    def test_of_what_ends_a_process(self) -> None:
        finding = failure(CRASH, "died", Scenario((examples.CALL,))).findings[0]
        (test,) = functions_of(reproduction(target="tests.repro.examples:aborting", finding=finding)).values()
        with pytest.raises(AssertionError, match="CRASH process-died: died"):
            test()


def test_one_function_each() -> None:
    other = reproduction(scenario=Scenario((examples.CALL, examples.CALL)))
    names = list(functions_of(reproduction(), other, reproduction()))
    assert len(names) == 2
    assert all(name.startswith("test_fm203_") for name in names)


def test_what_it_looks_like() -> None:
    finding = replace(examples.FINDING, severity="warning")
    text = as_pytest([reproduction(finding=finding)])
    assert text.startswith('"""Findings of fmcheck, as tests."""\n\nfrom fmcheck.case import Case\n')
    assert "judged_apart" not in text
    assert "prompts=('a', 'b')," in text
    assert "assert 'FM203' not in verdict.failing(strict=True), found\n" in text
    assert toy_subject.broken.case.height == 16
    assert "height=16," in text
