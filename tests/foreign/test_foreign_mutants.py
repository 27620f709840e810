"""Defects in code that the rules have never seen, and that code without them."""

from collections import Counter
from importlib import import_module

import pytest

from fmcheck.run import check
from tests.foreign.mutants import MUTANTS, Mutant, planted
from tests.foreign.subjects import SUBJECTS
from tests.foreign.unseen import UNSEEN

FAST = {"functional", "wrapped"}
FAST_DEFECTS = [
    ("flux", "shift left out"),
    ("data", "halves swapped"),
    ("lists", "not negated"),
    ("wrapped", "texts in the other order"),
]


def _found(subject: str) -> list[str]:
    """The rules that report an error or a warning."""
    outcomes = check(SUBJECTS[subject]).outcomes
    return sorted(o.rule.code for o in outcomes if any(finding.severity != "note" for finding in o.findings))


def _found_in(mutant: Mutant) -> list[str]:
    with planted(mutant):
        return _found(mutant.subject)


def test_a_defect_is_planted_and_taken_out_again() -> None:
    for mutant in MUTANTS:
        module = import_module(f"tests.foreign.pipelines.{mutant.module}")
        before = dict(vars(module))
        with planted(mutant):
            assert vars(module) != before
        assert vars(module) == before


def test_every_pipeline_has_four_defects_each_with_a_name_of_its_own() -> None:
    names = [(mutant.subject, mutant.defect) for mutant in MUTANTS]
    assert len(set(names)) == len(names)
    assert min(Counter(subject for subject, _ in names)[name] for name in SUBJECTS) >= 4


def test_a_text_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="found 0 times"), planted(Mutant("p12_lists", "lists", "none", "?!", "")):
        pass


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in FAST else pytest.mark.slow) for name in SUBJECTS]
)
def test_foreign_subjects_are_silent(name: str) -> None:
    assert _found(name) == []


@pytest.mark.parametrize("name", FAST_DEFECTS, ids=":".join)
def test_a_defect_is_found(name: tuple[str, str]) -> None:
    (mutant,) = (mutant for mutant in MUTANTS if (mutant.subject, mutant.defect) == name)
    assert _found_in(mutant)


@pytest.mark.slow
@pytest.mark.parametrize("name", SUBJECTS)
def test_every_other_defect_is_found(name: str) -> None:
    """The table of one pipeline, for `pytest -s` or a failure; `-n` spreads the pipelines over processes."""
    table = {mutant.defect: _found_in(mutant) for mutant in MUTANTS if mutant.subject == name}
    for defect, codes in table.items():
        print(f"{f'{name}: {defect}':<60} {' '.join(codes) or 'MISSED'}")
    assert {defect for defect, codes in table.items() if not codes} == {d for s, d in UNSEEN if s == name}


def _share_found() -> float:
    """By the list that the slow tests hold the rules to."""
    assert set(UNSEEN) <= {(mutant.subject, mutant.defect) for mutant in MUTANTS}
    return 1 - len(UNSEEN) / len(MUTANTS)


def test_nine_of_ten_defects_are_found() -> None:
    assert _share_found() >= 0.9
