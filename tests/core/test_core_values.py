"""What counts as a number: booleans, NaN and numbers that no float can hold do not."""

import math

import pytest

from fmcheck.values import is_count, is_finite_number, is_range

HOSTILE = [None, "1", "", [], [1], {}, object(), True, False, math.nan, math.inf, -math.inf, 10**400, 1j, b"1"]


@pytest.mark.parametrize("value", [v for v in HOSTILE if v != 10**400])
def test_no_count(value: object) -> None:
    assert not is_count(value)


@pytest.mark.parametrize("value", HOSTILE)
def test_no_number(value: object) -> None:
    assert not is_finite_number(value)


def test_numbers() -> None:
    assert [is_count(v) for v in (1, 2**63, 0, -1, 1.0)] == [True, True, False, False, False]
    assert all(map(is_finite_number, (0, -3, 1.5, 5e-324, 2**1000)))


@pytest.mark.parametrize("value", [*HOSTILE, (0, 0), (1, 0), (0,), (0, 1, 2), (0, math.nan), [0, 1], ("a", "b")])
def test_no_range(value: object) -> None:
    assert not is_range(value)


def test_range() -> None:
    assert is_range((-1, 1.0))
