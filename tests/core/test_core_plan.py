"""Every run that the plan derives is legal and is what its name says, for odd native cases too."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fmcheck.case import Case
from fmcheck.errors import DeclarationError, NotInformative
from fmcheck.plan import Plan, Wish
from fmcheck.spec import FlowSpec
from fmcheck.subject import Subject
from fmcheck.subjects.tiny import subject as tiny


def _plan(spec: FlowSpec, case: Case, **changes: Any) -> Plan:
    fields = {"name": "s", "build": lambda case: None, "generate": lambda m, r: None, "velocity": "net", **changes}
    return Plan(Subject(spec=spec, case=case, **fields))


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    down = draw(st.sampled_from([1, 2, 8, 16, 32]))
    multiple = draw(st.sampled_from([None, 1, 2, 4]))
    formula = draw(st.sampled_from(["cond_plus", "uncond_plus"]))
    spec = FlowSpec(
        downsampling=down,
        size_multiple=None if multiple is None else multiple * down,
        guidance_formula=formula,
        guidance_from=draw(st.none() | st.sampled_from([0.0, 1.0, 3.0])),
    )
    case = Case(
        prompts=tuple("abcde"[: draw(st.integers(1, 5))]),
        height=draw(st.integers(1, 40)) * spec.multiple,
        width=draw(st.integers(1, 40)) * spec.multiple,
        num_steps=draw(st.integers(1, 5)),
        guidance_scale=draw(st.floats(-20, 20) | st.sampled_from([0, 1, 0.5, 0.583333, 7])),
        seed=draw(st.integers(0, 2**63 - 1)),
    )
    return _plan(spec, case, dtypes=draw(st.sampled_from([("float32",), ("float32", "bfloat16")])))


NAMED = [(32, 32, 32, None, 1), (64, 1024, 8, 16, 1), (1024, 64, 8, 16, 3), (96, 64, 32, None, 2), (8, 8, 8, None, 2)]


def _check_plan(plan: Plan) -> None:
    spec, native = plan.subject.spec, plan.native
    for wish in (*plan.plain, plan.again, plan.other_seed, plan.loss, plan.large_loss, plan.few_prompts, plan.permuted):
        assert wish.case.height % spec.multiple == 0, wish.name
        assert wish.case.width % spec.multiple == 0, wish.name
    assert len(set(plan.plain)) == len(plan.plain), "equal wishes are one"
    assert plan.plain[0] == plan.base
    sizes = [(w.case.height, w.case.width) for w in (plan.base, plan.wide, plan.other_size)]
    assert len(set(sizes[1:])) == 2 or sizes[1] == sizes[2] != sizes[0]
    assert sizes[0] not in sizes[1:], "another size is another size"
    assert sizes[2][0] != sizes[2][1], "not square, or swapped axes would not show"
    assert spec.guidance_weight(plan.unguided.case.guidance_scale) == 0
    assert spec.guidance_weight(plan.other_scale.case.guidance_scale) != 0
    assert plan.other_scale.case.guidance_scale != native.guidance_scale
    assert plan.other_seed.case.seed != native.seed
    assert plan.few_prompts.case.seed != plan.large_loss.case.seed, "or both would have the same noise"
    assert plan.more_steps.case.num_steps == 2 * native.num_steps
    assert (plan.one_step.case.batch, plan.one_step.case.num_steps) == (1, 1)
    for wish in plan.impossible_sizes.values():
        assert wish.case.height % spec.multiple or wish.case.width % spec.multiple, wish.name


@given(plans())
def test_every_derived_case_is_legal_and_different(plan: Plan) -> None:
    _check_plan(plan)


@pytest.mark.parametrize(("height", "width", "down", "multiple", "batch"), NAMED)
def test_odd_native_sizes(height: int, width: int, down: int, multiple: int | None, batch: int) -> None:
    spec = FlowSpec(downsampling=down, size_multiple=multiple)
    plan = _plan(spec, Case(height=height, width=width).with_batch(batch))
    _check_plan(plan)
    pixels = plan.other_size.case.height * plan.other_size.case.width
    assert pixels <= max(height * width, 9 * spec.multiple**2), "small sizes cost little"


def test_the_same_side_of_the_neutral_scale() -> None:
    spec = FlowSpec(guidance_formula="uncond_plus")
    for scale in (0.5, 0.583333, 0.99, 1.01, 7.5, -3.0):
        other = _plan(spec, Case(guidance_scale=scale)).other_scale.case.guidance_scale
        assert (other - 1) * (scale - 1) > 0


def test_batch_equals_latent_width_where_that_is_cheap() -> None:
    case = Plan(tiny).other_size.case
    assert case.batch == case.width // tiny.spec.downsampling == 4
    large = _plan(FlowSpec(downsampling=8, size_multiple=16), Case(height=1024, width=1024))
    assert large.other_size.case.batch == 3


def test_the_plan_of_the_tiny_model() -> None:
    found = {name: str(case) for name, case in Plan(tiny).describe().items()}
    assert (
        found.items()
        >= {
            "base": "batch 3  256x256  steps 4  guidance 2.5  seed 0  float32  cpu",
            "unguided": "batch 3  256x256  steps 4  guidance 0  seed 0  float32  cpu",
            "other-scale": "batch 3  256x256  steps 4  guidance 3.875  seed 0  float32  cpu",
            "one-step": "batch 1  256x256  steps 1  guidance 2.5  seed 0  float32  cpu",
            "more-steps": "batch 3  256x256  steps 8  guidance 2.5  seed 0  float32  cpu",
            "wide": "batch 3  128x512  steps 4  guidance 2.5  seed 0  float32  cpu",
            "other-size": "batch 4  160x128  steps 3  guidance 2.5  seed 0  float32  cpu",
            "bfloat16": "batch 3  256x256  steps 4  guidance 2.5  seed 0  bfloat16  cpu",
        }.items()
    )


def test_wishes_that_differ_only_in_their_name_are_one() -> None:
    case = Case()
    assert Wish("a", case) == Wish("b", case)
    assert hash(Wish("a", case)) == hash(Wish("b", case))
    assert Wish("a", case) != Wish("a", case, turn=1)
    assert Wish("a", case) != Wish("a", case, disturb_rng=1)
    assert Plan(tiny).fault("decode") == Plan(tiny).fault("decode")
    assert Plan(tiny).fault("decode") != Plan(tiny).fault("sample")
    assert Plan(tiny).poisoned(0) != Plan(tiny).poisoned(1)


def test_sizes_where_everything_is_possible() -> None:
    assert _plan(FlowSpec(downsampling=1), Case(height=5, width=7)).impossible_sizes == {}


def test_poison_keeps_the_watched_row_in_both_halves() -> None:
    plan = Plan(tiny)
    change = plan.poisoned(1).disturbances[-1].output
    poisoned = change({}, torch.zeros(6, 2))
    assert poisoned.isnan().any(dim=1).tolist() == [True, False, True, True, False, True]
    with pytest.raises(NotInformative, match="has not a row for every one of 3 prompts"):
        change({}, torch.zeros(4, 2))


def test_other_neighbours_leave_the_watched_prompt() -> None:
    plan = Plan(tiny)
    for row in range(3):
        prompts = plan.neighbours(row).case.prompts
        same = [a == b for a, b in zip(prompts, plan.native.prompts, strict=True)]
        assert same == [i == row for i in range(3)]


def test_shifted_time_leaves_calls_without_time_alone() -> None:
    shift = Plan(tiny).shifted_time.disturbances[0].inputs
    assert shift({"time": None}) == {}
    assert shift({"time": 4.0}) == {"time": 2.0}
    assert math.isclose(float(shift({"time": torch.tensor(0.0)})["time"]), -2.0)


def test_a_native_size_must_be_legal() -> None:
    with pytest.raises(DeclarationError, match="is not divisible by 16"):
        _plan(FlowSpec(downsampling=8, size_multiple=16), Case(height=24, width=32))
