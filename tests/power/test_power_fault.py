"""The list of faults: each says what it is, what it needs and which rules notice it."""

import pytest

from fmcheck.errors import DeclarationError, InternalError
from fmcheck.power import all_faults
from fmcheck.power.fault import Fault, around, on_output
from fmcheck.rules import get_rule
from fmcheck.subject import ROLES

FAULTS = all_faults()
by_name = pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)


def test_there_are_many_on_every_side_of_the_pipeline() -> None:
    assert len(FAULTS) >= 60
    assert {fault.role for fault in FAULTS} >= {"velocity", "text", "encode", "sample", "decode", "request", "result"}
    assert {fault.kind for fault in FAULTS} == {"generate", "loss"}
    assert {fault.side for fault in FAULTS} == {"loop", "network"}


@by_name
def test_every_fault_is_described_and_known_to_a_rule(fault: Fault) -> None:
    assert fault.summary.endswith(".")
    assert fault.rules
    for code in fault.rules:
        assert get_rule(code).code == code


@by_name
def test_needs_are_points_arguments_or_the_loss(fault: Fault) -> None:
    for need in fault.needs:
        role, _, argument = need.partition(".")
        assert role in ROLES
        assert not argument or argument in ROLES[role]
    assert fault.role in (*fault.needs, "request", "result")


def test_names_choose_in_their_order_and_once() -> None:
    chosen = all_faults(["null_inverted", "velocity_negated", "null_inverted"])
    assert [fault.name for fault in chosen] == ["null_inverted", "velocity_negated"]


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(DeclarationError, match="did you mean 'velocity_negated'"):
        all_faults(["velocity_negatd"])


def test_a_fault_without_docstring_or_with_a_taken_name_is_our_mistake() -> None:
    with pytest.raises(InternalError, match="no docstring"):
        around("velocity", rules=("FM501",))(lambda call: call.go())

    def velocity_negated(v: object, call: object) -> object:
        """Again."""
        return v

    with pytest.raises(InternalError, match="twice"):
        on_output("velocity", rules=("FM501",))(velocity_negated)
