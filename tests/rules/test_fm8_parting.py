"""Where two runs part: the bound of every event, the first one beyond it, and the mistake that explains it."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from fmcheck.errors import NotInformative
from fmcheck.plan import Run, Wish
from fmcheck.record.disturb import Disturbance, change_output
from fmcheck.rules import Check
from fmcheck.rules.fm8_mistakes import mistake
from fmcheck.rules.fm8_parting import agree, differ, events, require_same_weights, same_bits
from fmcheck.session import Session
from fmcheck.tolerance.devices import device_bound
from tests.rules.toy import CASE, toy_subject

EPS = torch.finfo(torch.float32).eps
ROOT = math.sqrt(EPS)


@pytest.fixture(scope="module")
def session() -> Session:
    return Session(toy_subject(case=CASE.but(num_steps=4, guidance_scale=2.5)))


def other(session: Session, name: str, *changes: Disturbance) -> Run:
    """The native case with changes, or once more: not the run of `base` itself."""
    return session.run(Wish(name, session.plan.native, disturbances=changes, turn=1))


def from_call(role: str, number: int, change: Callable[[Tensor], Tensor], name: str = "") -> Disturbance:
    """Change the outputs of a role from one call on."""
    made = [0]

    def output(_: Any, tensor: Tensor) -> Tensor:
        made[0] += 1
        return change(tensor) if made[0] > number else tensor

    return change_output(f"{name or change} from {role}[{number}]", role, output)


def times(factor: float) -> Callable[[Tensor], Tensor]:
    return lambda tensor: factor * tensor


def failed(checks: list[Check]) -> list[Check]:
    return [check for check in checks if not check.holds]


def only(checks: list[Check], *parts: str) -> Check:
    """The one check that failed, which says each part."""
    (check,) = failed(checks)
    told = f"{check.message}; {check.where}; {check.diagnosis}"
    for part in parts:
        assert part in told, told
    return check


# Events.


def test_events_come_in_the_order_of_the_calls(session: Session) -> None:
    base = session.run(session.plan.base)
    found = list(events(base, other(session, "again"), EPS))
    names = [event.name for event in found]
    assert names[0] == "the output of text[0]"
    assert names[1:4] == ["the input of velocity[0]", "the time of velocity[0]", "the output of velocity[0]"]
    assert names[-5:] == [f"the {k} of {c}[0]" for c in ("sample", "decode") for k in ("input", "output")] + [
        "the result"
    ]
    assert {event.apart for event in found} == {0.0}
    assert not differ(base, other(session, "again"))


def test_a_distance_is_a_share_of_the_size(session: Session) -> None:
    base = session.run(session.plan.base)
    run = other(session, "longer", from_call("text", 0, times(1 + 2**-8)))
    first = next(iter(events(base, run, EPS)))
    assert first.apart == pytest.approx(2**-8, rel=1e-5)
    assert first.before == 0


def test_bounds_count_the_passes_since_the_runs_first_differed(session: Session) -> None:
    base = session.run(session.plan.base)
    same = {event.name: event for event in events(base, other(session, "again"), EPS)}
    assert same["the input of velocity[2]"].drift == 0, "nothing differs, so nothing adds up"
    assert same["the output of velocity[2]"].drift == pytest.approx(ROOT)
    tiny = other(session, "rounded", from_call("text", 0, times(1 + 1e-6)))
    found = {event.name: event for event in events(base, tiny, EPS)}
    assert found["the output of text[0]"].drift == pytest.approx(ROOT)
    assert found["the input of velocity[0]"].drift == pytest.approx(ROOT)
    assert found["the output of velocity[0]"].drift == pytest.approx(2 * ROOT)
    collected = device_bound(EPS, passes=1, weight=2.5, guided=True, calls=4)
    assert found["the input of sample[0]"].drift == pytest.approx(collected)
    assert found["the result"].drift == pytest.approx(collected + ROOT)


def test_what_was_measured_before_widens_a_bound(session: Session) -> None:
    base = session.run(session.plan.base)
    run = other(session, "rounded", from_call("text", 0, times(1 + 1e-6)))
    for event in events(base, run, EPS):
        assert event.allowed == pytest.approx(min(1, max(event.drift, (event.before + EPS) / ROOT)))


# Bisection.


@pytest.mark.parametrize(
    ("change", "where", "cause"),
    [
        (from_call("text", 0, times(1.25)), "the output of text[0]", "it is 1.25 times that of the reference"),
        (from_call("velocity", 2, times(1.04)), "the output of velocity[2]", "it is 1.04 times"),
        (from_call("velocity", 2, torch.zeros_like), "the output of velocity[2]", "it is zero"),
        (from_call("velocity", 1, lambda v: v.flip(3)), "velocity[1]", "the same values in another order"),
        (from_call("velocity", 3, lambda v: v + torch.sin(9 * v)), "velocity[3]", "velocity itself computes something"),
        (from_call("velocity", 1, lambda v: v / 0), "velocity[1]", "it holds NaN or infinity"),
        (from_call("decode", 0, lambda x: torch.cat([x[:1], -x[1:2], x[2:]])), "decode[0]", "only row 1 of 3 differs"),
    ],
    ids=lambda value: value if isinstance(value, str) else "change",
)
def test_the_first_event_that_parts_is_named(session: Session, change: Disturbance, where: str, cause: str) -> None:
    base = session.run(session.plan.base)
    found = only(list(agree(base, other(session, "changed", change), "changed")), where, cause, "changed: ")
    assert found.used > found.allowed
    assert found.severity == "error"


def test_the_step_is_named_with_the_call(session: Session) -> None:
    base = session.run(session.plan.base)
    run = other(session, "late", from_call("velocity", 2, times(1.04)))
    only(list(agree(base, run, "late")), "the output of velocity[2] (f32[6,4,8,8]), step 2 of 4")


def test_an_update_that_parts_is_told_from_a_call_that_does(session: Session) -> None:
    base = session.run(session.plan.base)
    run = other(session, "moved")
    call = run.trace.of("velocity")[2]
    kept, call.inputs["x"] = call.inputs["x"], call.inputs["x"] + 0.1 * torch.sin(7 * call.inputs["x"])
    try:
        only(list(agree(base, run, "moved")), "the input of velocity[2]", "the update of the state, between the calls")
    finally:
        call.inputs["x"] = kept


def test_drift_beyond_all_bounds_is_a_warning_that_names_the_largest_leap(session: Session) -> None:
    base = session.run(session.plan.base)
    changes = from_call("text", 0, times(1 + 0.9 * ROOT)), from_call("velocity", 1, times(1.05))
    # Behind a difference of half of the digits, one of all digits may be the condition of the flow.
    found = only(
        list(agree(base, other(session, "drifting", *changes), "drifting")),
        "the result differs by",
        "little by little",
        "most of it at the output of velocity[1]",
        "it is 1.05 times",
    )
    assert found.severity == "warning"


def test_nothing_is_compared_where_no_difference_could_be_told(session: Session) -> None:
    base = session.run(session.plan.base)
    run = other(session, "half", from_call("text", 0, times(1.5)))
    checks = list(agree(base, run, "half", eps=1.0))
    assert not failed(checks)
    assert [check.ratio for check in checks] == [None], "only that the same calls are made"


def test_a_reference_that_is_not_finite_says_nothing(session: Session) -> None:
    base = other(session, "broken", from_call("velocity", 1, times(math.nan)))
    with pytest.raises(NotInformative, match=r"NaN or infinity in the output of velocity\[1\]"):
        list(agree(base, session.run(session.plan.base), "repaired"))


def test_other_calls_are_a_difference(session: Session) -> None:
    base, run = session.run(session.plan.base), session.run(session.plan.more_steps)
    first = next(iter(agree(base, run, "longer")))
    assert not first.holds
    assert "other calls are made: velocity[4] in the place of sample[0]" in first.message


def test_bits_are_asked_for_where_the_same_kernels_serve(session: Session) -> None:
    base = session.run(session.plan.base)
    assert not failed(list(same_bits(base, other(session, "again"), "again")))
    run = other(session, "a bit", from_call("velocity", 1, lambda v: torch.nextafter(v, v + 1)))
    assert not failed(list(agree(base, run, "a bit")))
    only(list(same_bits(base, run, "a bit")), "the output of velocity[1]", "allowed 0 (bitwise)")


def test_runs_of_other_weights_are_not_compared(session: Session) -> None:
    class Found:
        def unlike(self, _: object) -> str:
            return "velocity.weight"

    base, run = session.run(session.plan.base), other(session, "again")
    base.trace.found, kept = Found(), base.trace.found
    try:
        with pytest.raises(NotInformative, match=r"in float32 on cpu has other weights: velocity\.weight is not"):
            require_same_weights(base, run)
    finally:
        base.trace.found = kept
    require_same_weights(base, run)


# Mistakes.

A = torch.linspace(-3, 5, 24).reshape(4, 6)


@pytest.mark.parametrize(
    ("second", "told"),
    [
        (A[:, :5], "it is f32[4,5], f32[4,6] in the reference"),
        (A.half(), "rounded to float16"),
        (A.bfloat16().float(), "its values are rounded to bfloat16"),
        (-A, "it is -1 times"),
        (A.t().reshape(4, 6), "the same values in another order"),
        (torch.cat([A[:3], A[3:] + 1]), "only row 3 of 4 differs"),
        (torch.cat([A[:2], A[2:].flip(1)]), "only rows 2, 3 of 4 differ"),
    ],
)
def test_known_mistakes(second: Tensor, told: str) -> None:
    found = mistake(A, second.float() if second.dtype == torch.float16 else second, 1e-4)
    assert found is not None
    assert told in found


def test_what_no_known_mistake_explains() -> None:
    assert mistake(A, A + torch.sin(40 * A), 1e-4) is None
    assert mistake(A, A * (1 + 1e-6), 1e-4) is None
