"""What was computed from a record once is not computed again, a premise that does not hold included."""

from dataclasses import dataclass

import pytest

from fmcheck.errors import NotInformative
from fmcheck.record.memo import Memo, once


@dataclass
class Numbers(Memo):
    values: list[int]


def test_an_answer_is_computed_once_for_each_record() -> None:
    asked: list[int] = []

    @once
    def total(numbers: Numbers) -> int:
        asked.append(1)
        return sum(numbers.values)

    first, second = Numbers([1, 2]), Numbers([3, 4])
    assert [total(first), total(first), total(second)] == [3, 3, 7]
    assert len(asked) == 2


def test_two_questions_do_not_share_an_answer() -> None:
    numbers = Numbers([2, 3])
    assert numbers.memo(lambda found: max(found.values)) == 3
    assert numbers.memo(lambda found: min(found.values)) == 2


def test_none_is_an_answer() -> None:
    asked: list[int] = []
    numbers = Numbers([])

    def nothing(_: Numbers) -> None:
        asked.append(1)

    assert numbers.memo(nothing) is numbers.memo(nothing) is None
    assert len(asked) == 1


def test_a_missing_premise_is_remembered_and_a_defect_is_not() -> None:
    asked: list[str] = []
    numbers = Numbers([])

    @once
    def mean(found: Numbers) -> float:
        asked.append("mean")
        if not found.values:
            raise NotInformative("no numbers")
        return sum(found.values) / len(found.values)

    @once
    def broken(_: Numbers) -> float:
        asked.append("broken")
        return 1 / 0

    for _ in range(2):
        with pytest.raises(NotInformative, match="no numbers"):
            mean(numbers)
        with pytest.raises(ZeroDivisionError):
            broken(numbers)
    assert asked == ["mean", "broken", "broken"]


def test_records_compare_by_their_fields_alone() -> None:
    asked, other = Numbers([1]), Numbers([1])
    asked.memo(lambda found: sum(found.values))
    assert asked == other
