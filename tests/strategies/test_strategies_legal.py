"""Whatever is drawn can be asked for: a legal size, within the budget and the domain, for every kind of subject."""

from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis import strategies as st

from fmcheck.case import Case
from fmcheck.errors import DeclarationError
from fmcheck.scenario import Call, Scenario
from fmcheck.spec import FlowSpec
from fmcheck.strategies import (
    Domain,
    batch_sizes,
    calls,
    cases,
    guidance_scales,
    invalid_sizes,
    prompt_lists,
    scenarios,
    seeds,
    sizes,
    step_counts,
)
from fmcheck.subject import Subject
from tests.cli import toy_subject
from tests.fuzz.fuzz_fakes import SMALL, able, subject

SUBJECTS = {
    "house": subject(),
    "toy": toy_subject.subject,
    "small": SMALL,
    "able": able("able", dtypes=("float32", "bfloat16")),
    "three sizes": subject(sizes=((256, 256), (128, 512), (512, 128))),
    "one size": subject(sizes=((256, 256),)),
    "uncond_plus": subject(spec=FlowSpec(guidance_formula="uncond_plus"), case=Case(guidance_scale=7.5)),
    "multiple of 64": subject(
        spec=FlowSpec(latent_channels=4, downsampling=8, size_multiple=64), case=Case(height=512, width=320)
    ),
    "huge": subject(case=Case(height=4096, width=2048, num_steps=50)),
    "one cell": subject(case=Case(prompts=("a",), height=32, width=32, num_steps=1)),
    "one pixel": subject(
        spec=FlowSpec(latent_channels=1, downsampling=1), case=Case(prompts=("",), height=1, width=1, num_steps=1)
    ),
    "flat": subject(case=Case(height=32, width=1024)),
}
EACH = pytest.mark.parametrize("of", SUBJECTS.values(), ids=SUBJECTS)
SOME = settings(
    max_examples=20, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
)


def why_illegal(case: Case, of: Subject, domain: Domain) -> list[str]:
    """What is wrong with a case; empty for one that can be asked for."""
    multiple, weight = of.spec.multiple, case.guidance_scale - of.spec.neutral_scale
    wrong = {
        f"size {case.height}x{case.width}": case.height % multiple or case.width % multiple,
        "size not declared": of.sizes is not None and (case.height, case.width) not in of.sizes,
        f"side {case.height}x{case.width}": of.sizes is None and max(case.height, case.width) > (domain.max_side or 0),
        f"batch {case.batch}": case.batch > domain.max_batch,
        f"steps {case.num_steps}": case.num_steps > domain.max_steps,
        f"weight {weight}": not domain.weights[0] - 1e-9 <= weight <= domain.weights[1] + 1e-9,
        f"dtype {case.dtype}": case.dtype not in of.dtypes,
        f"device {case.device}": case.device != of.case.device,
    }
    return [what for what, holds in wrong.items() if holds]


def most(of: Subject, domain: Domain) -> int:
    """The budget, which one declared size may exceed where there is none below."""
    return max(domain.budget or 0, min(height * width for height, width in of.sizes) if of.sizes else 0)


@EACH
def test_cases(of: Subject) -> None:
    domain = Domain().of(of)

    @SOME
    @given(cases(of))
    def drawn(case: Case) -> None:
        assert why_illegal(case, of, domain) == []
        assert Call(case=case).cost <= most(of, domain)

    drawn()


@EACH
def test_scenarios_keep_the_budget_with_all_their_calls(of: Subject) -> None:
    domain = Domain().of(of)

    @SOME
    @given(scenarios(of, asks=("FM204", "FM801")))
    def drawn(scenario: Scenario) -> None:
        for call in scenario.calls:
            assert why_illegal(call.case, of, domain) == []
            assert call.kind == "generate" or of.loss is not None
            assert call.tokens == "plain" or of.tokenize is not None
        assert scenario.cost <= most(of, domain) * (len(scenario.calls) if of.sizes else 1)
        assert len(set(scenario.asks)) == len(scenario.asks)
        if scenario.asks:
            assert scenario.calls == (Call(case=scenario.last.case),), "the asked rules see nothing but the case"

    drawn()


DOMAINS = st.builds(
    Domain,
    budget=st.none() | st.integers(1, 10**6),
    max_batch=st.integers(1, 9),
    max_steps=st.integers(1, 9),
    max_side=st.none() | st.integers(1, 4096),
    weights=st.sampled_from([(-10.0, 1e5), (0.0, 1.0), (0.25, 0.5), (-3.0, -1.0), (1e6, 2e6), (0.0001, 0.0002)]),
)


@EACH
def test_domains_are_kept(of: Subject) -> None:
    @SOME
    @given(st.data(), DOMAINS)
    def drawn(data: st.DataObject, domain: Domain) -> None:
        filled = domain.of(of)
        case = data.draw(cases(of, domain))
        assert why_illegal(case, of, filled) == []
        assert Call(case=case).cost <= most(of, filled)

    drawn()


def test_a_domain_is_filled_in_from_the_native_case_and_never_below_one_cell() -> None:
    assert Domain().of(SMALL) == Domain(budget=2 * 32 * 48 * 3 * 2, max_side=4 * 48)
    assert Domain(budget=1, max_side=1).of(SMALL) == Domain(budget=64, max_side=8)
    assert Domain(weights=[0, 1]).weights == (0, 1)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"budget": 0}, "Domain.budget: expected a positive integer; found 0"),
        ({"max_batch": 0}, "Domain.max_batch: expected a positive integer; found 0"),
        ({"max_batch": None}, "Domain.max_batch: expected a positive integer; found None"),
        ({"max_steps": 2.0}, "Domain.max_steps: expected a positive integer; found 2.0"),
        ({"max_side": True}, "Domain.max_side: expected a positive integer; found True"),
        ({"weights": (1.0, 1.0)}, "Domain.weights: expected a pair (low, high), low < high; found (1.0, 1.0)"),
        ({"weights": (0.0, float("inf"))}, "Domain.weights: expected a pair (low, high), low < high; found (0.0, inf)"),
        ({"weights": 3}, "Domain.weights: expected a pair (low, high), low < high; found 3"),
    ],
)
def test_wrong_domains(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(DeclarationError) as caught:
        Domain(**fields)
    assert str(caught.value) == message


@EACH
def test_the_simplest_scenario_is_one_prompt_one_step_the_smallest_size_and_no_guidance(of: Subject) -> None:
    multiple = of.spec.multiple
    legal = of.sizes or ((multiple, multiple),)
    height, width = min(legal, key=lambda size: (size[0] * size[1], size))
    least = Case(
        prompts=of.case.prompts[:1],
        height=height,
        width=width,
        num_steps=1,
        guidance_scale=of.spec.neutral_scale,
        seed=0,
        dtype=of.case.dtype,
        device=of.case.device,
    )
    phases = settings(max_examples=50, database=None, phases=[Phase.generate, Phase.shrink])
    asks = ("FM204", "FM801")
    assert find(scenarios(of, asks=asks), lambda scenario: True, settings=phases) == Scenario((Call(case=least),))
    assert find(calls(of), lambda call: True, settings=phases) == Call(case=least)
    assert find(cases(of), lambda case: True, settings=phases) == least


@EACH
def test_sizes_that_are_no_multiple_are_never_legal(of: Subject) -> None:
    if of.spec.multiple == 1:
        with pytest.raises(DeclarationError, match="every size of subject 'never built' is legal"):
            find(invalid_sizes(of), lambda size: True)
        return

    @SOME
    @given(invalid_sizes(of))
    def drawn(size: tuple[int, int]) -> None:
        assert size[0] % of.spec.multiple or size[1] % of.spec.multiple
        assert min(size) > 0
        with pytest.raises(DeclarationError, match="divisible"):
            of.but(case=of.case.but(height=size[0], width=size[1]), sizes=None)

    drawn()


@pytest.mark.parametrize("of", [SUBJECTS["multiple of 64"], SUBJECTS["three sizes"]])
def test_a_single_size(of: Subject) -> None:
    @SOME
    @given(sizes(of))
    def drawn(size: tuple[int, int]) -> None:
        assert why_illegal(of.case.but(height=size[0], width=size[1]), of, Domain().of(of)) == []

    drawn()


@settings(SOME, max_examples=150)
@given(st.data(), st.sampled_from(["able", "small"]), st.integers(1, 20))
def test_prompts_are_as_many_as_asked_for_and_made_of_native_words(data: st.DataObject, name: str, batch: int) -> None:
    of = SUBJECTS[name]
    longest = max(len(prompt.split()) for prompt in of.case.prompts)
    words = {word for prompt in of.case.prompts for word in prompt.split()}
    prompts = data.draw(prompt_lists(of, batch))
    assert len(prompts) == batch
    for prompt in prompts:
        assert set(prompt.split()) <= words
        assert len(prompt.split()) <= longest + (4 if of.tokenize else 0)


@SOME
@given(st.integers(1, 20), st.integers(1, 100), st.data())
def test_counts_and_seeds(batch: int, steps: int, data: st.DataObject) -> None:
    assert 1 <= data.draw(batch_sizes(batch)) <= batch
    assert 1 <= data.draw(step_counts(steps)) <= steps
    assert 0 <= data.draw(seeds()) < 2**63


@SOME
@given(st.data(), st.sampled_from(["cond_plus", "uncond_plus"]))
def test_scales_are_in_the_convention_of_the_spec(data: st.DataObject, formula: str) -> None:
    spec = FlowSpec(guidance_formula=formula)  # type: ignore[arg-type]
    scale = data.draw(guidance_scales(spec, (-0.5, 2.0)))
    assert -0.5 <= scale - spec.neutral_scale <= 2.0


def test_dtypes_and_devices_can_be_given() -> None:
    @SOME
    @given(cases(SUBJECTS["able"], dtypes=["bfloat16"], devices=["meta"]))
    def drawn(case: Case) -> None:
        assert case.device == "meta"
        assert case.dtype in ("float32", "bfloat16"), "the native one is always among them"

    drawn()
