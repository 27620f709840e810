"""Defects in code that the rules have never seen, and that code without them."""

from importlib import import_module

import pytest

from fmcheck.run import check
from tests.foreign.mutants import MUTANTS, Mutant, planted
from tests.foreign.subjects import SUBJECTS

FAST = {"functional", "wrapped"}


def _found(mutant: Mutant) -> list[str]:
    with planted(mutant):
        report = check(SUBJECTS[mutant.subject])
    return sorted(outcome.rule.code for outcome in report.outcomes if outcome.status == "failed")


def test_a_defect_is_planted_and_taken_out_again() -> None:
    for mutant in MUTANTS:
        module = import_module(f"tests.foreign.pipelines.{mutant.module}")
        before = dict(vars(module))
        with planted(mutant):
            assert vars(module) != before
        assert vars(module) == before


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in FAST else pytest.mark.slow) for name in SUBJECTS]
)
def test_a_correct_pipeline_has_no_finding(name: str) -> None:
    report = check(SUBJECTS[name])
    assert not [f for outcome in report.outcomes for f in outcome.findings if f.severity != "note"]


@pytest.mark.slow
def test_nine_of_ten_defects_are_found() -> None:
    table = {f"{mutant.subject}: {mutant.defect}": _found(mutant) for mutant in MUTANTS}
    for name, codes in table.items():
        print(f"{name:<55} {' '.join(codes) or 'MISSED'}")
    assert len(table) >= 40
    assert sum(map(bool, table.values())) >= 0.9 * len(table)
