"""The shared pieces of rules: comparisons, premises, diagnoses."""

import math

import pytest
import torch

from fmcheck.errors import NotInformative
from fmcheck.rules.evidence import bitwise, exact, given, nearest_explanation, require, require_finite, within


def test_premises_say_why() -> None:
    require(True, "unused")
    with pytest.raises(NotInformative, match="because"):
        require(False, "because")
    assert given(0, "unused") == 0
    with pytest.raises(NotInformative, match="nothing there"):
        given(None, "nothing there")
    require_finite(torch.ones(2), None)
    for value in (math.nan, math.inf, -math.inf):
        with pytest.raises(NotInformative, match="FM109"):
            require_finite(torch.tensor([1.0, value]))


def test_a_diagnosis_is_asked_for_only_on_failure() -> None:
    def never() -> str:
        raise RuntimeError("asked")

    assert exact(True, "message", diagnosis=never).diagnosis is None
    assert within(1.0, 1.0, "message", diagnosis=never).holds
    assert exact(False, "message", diagnosis=lambda: "cause").diagnosis == "cause"
    assert within(2.0, 1.0, "message", diagnosis="cause").diagnosis == "cause"


@pytest.mark.parametrize(("used", "allowed"), [(math.nan, 1.0), (1.0, math.nan), (math.inf, 1.0), (1e-300, 0.0)])
def test_what_cannot_be_compared_fails(used: float, allowed: float) -> None:
    assert not within(used, allowed, "message").holds


def test_ratios() -> None:
    assert within(0.5, 2.0, "").ratio == 0.25
    assert within(0.0, 0.0, "").ratio == 0.0
    assert within(1.0, 0.0, "").ratio == math.inf
    assert exact(False, "").ratio is None


def test_bitwise_knows_shape_dtype_and_nan() -> None:
    a = torch.tensor([1.0, math.nan])
    assert bitwise(a, a.clone())
    assert not bitwise(a, a.double())
    assert not bitwise(a, a[None])
    assert not bitwise(a, torch.tensor([1.0, 0.0]))
    assert not bitwise(torch.tensor([1.0]), torch.tensor([1.0 + 2**-23]))


def test_the_nearest_explanation_must_be_near() -> None:
    mistakes = ((1.0, "one"), (2.0, "two"), (math.nan, "never"))
    assert nearest_explanation(1.9995, mistakes, 1e-3) == "two"
    assert nearest_explanation(1.5, mistakes, 1e-3) is None
    assert nearest_explanation(1.0, (), 1.0) is None


def test_a_diagnosis_that_cannot_be_made_does_not_take_the_finding_with_it() -> None:
    def unable() -> str:
        raise NotInformative("the subject declares 4 steps, and 1 are asked about")

    found = exact(False, "the step has length 0.1, expected 0.2", diagnosis=unable)
    assert not found.holds
    assert found.diagnosis is None
