"""Runs in another way: what surrounds them stays on the second object, and what they vary can be told apart."""

import itertools

import pytest
import torch

from fmcheck.parity import (
    attention_runs,
    channels_last_run,
    compiled_run,
    counted_runs,
    device_runs,
    in_parts,
    other_device,
    surrounded,
)
from fmcheck.plan import Plan
from tests.rules.toy import CASE, FACTOR, toy_subject


@pytest.fixture
def plan() -> Plan:
    return Plan(toy_subject())


def test_what_surrounds_a_run_happens_after_the_first_calls_of_the_second_object(plan: Plan) -> None:
    wishes = [surrounded(plan, "no_grad"), compiled_run(plan), *attention_runs(plan).values()]
    wishes += counted_runs(plan).values()
    for wish in wishes:
        assert wish.fresh
        assert wish.ambient
        assert wish.after == (plan.fresh_base,)


def test_other_ways_of_calling_need_no_second_object(plan: Plan) -> None:
    for wish in (in_parts(plan), channels_last_run(plan)):
        assert not wish.fresh
        assert {change.role for change in wish.disturbances} <= {"velocity", "sample", "decode"}


def test_points_that_are_not_declared_are_left_out() -> None:
    plan = Plan(toy_subject(sample=None, decode=None))
    assert [change.role for change in in_parts(plan).disturbances] == ["velocity"]
    assert [change.role for change in channels_last_run(plan).disturbances] == ["velocity"]


def test_a_cpu_has_two_attention_backends_and_uses_one_of_them(plan: Plan) -> None:
    assert list(attention_runs(plan)) == ["math"]
    cuda = Plan(toy_subject(case=CASE.but(device="cuda")))
    assert list(attention_runs(cuda)) == ["math", "flash", "efficient", "cudnn"]


def test_counted_runs_vary_one_axis_after_the_other_and_share_one_compiled_network(plan: Plan) -> None:
    wishes = list(counted_runs(plan).values())
    assert len({id(wish.disturbances[0].around) for wish in wishes}) == 1
    assert len(set(wishes)) == len(wishes), "the last one is the first one again"
    cases = [wish.case for wish in wishes]
    assert (cases[0].num_steps, cases[1].num_steps) == (2, 3)
    assert cases[0].guidance_scale != cases[1].guidance_scale
    sizes = [(case.batch, case.height // FACTOR, case.width // FACTOR) for case in cases]
    assert sizes[0] == sizes[1] == sizes[2] == sizes[-1]
    for axis in range(3):
        assert len({size[axis] for size in sizes}) >= 4
    changes = [sum(a != b for a, b in itertools.zip_longest(size, sizes[0])) for size in sizes]
    assert max(changes) == 1, "axes that change together could not be told apart"
    # Two axes of one size may be taken for one by the compiler. (A single prompt is not guided.)
    assert not [size for size in sizes if size[0] > 1 and (2 * size[0] in size[1:] or size[1] == size[2])]


def test_counted_runs_keep_to_the_declared_sizes() -> None:
    plan = Plan(toy_subject(sizes=((64, 64), (32, 64))))
    assert {(wish.case.height, wish.case.width) for wish in counted_runs(plan).values()} <= {(64, 64), (32, 64)}


@pytest.mark.parametrize(
    ("own", "cuda", "mps", "other"),
    [
        ("cpu", False, False, None),
        ("cpu", True, False, "cuda"),
        ("cpu", True, True, "cuda"),
        ("cpu", False, True, "mps"),
        ("cuda:1", True, False, "cpu"),
        ("mps", False, True, "cpu"),
    ],
)
def test_the_other_device(monkeypatch: pytest.MonkeyPatch, own: str, cuda: bool, mps: bool, other: str | None) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert other_device(own) == other
    wishes = device_runs(Plan(toy_subject(case=CASE.but(device=own))))
    assert wishes["base"].case.device == own
    assert (wishes["other"].case.device if "other" in wishes else None) == other
    assert all(wish.ambient == ("deterministic", "full-products") for wish in wishes.values())
