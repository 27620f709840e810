"""Polishing: every candidate is legal and another one, it ends, and where it ends nothing simpler fails."""

import hashlib
import itertools
from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fmcheck.case import Case
from fmcheck.fuzz.polish import polished, simpler
from fmcheck.scenario import Call, Scenario
from fmcheck.spec import FlowSpec
from fmcheck.strategies import scenarios
from fmcheck.subject import Subject
from tests.fuzz.fuzz_fakes import SMALL, Axes, able, axes, last, subject

SUBJECTS = {
    "small": SMALL,
    "able": able("able", dtypes=("float32", "bfloat16")),
    "three sizes": subject(sizes=((256, 256), (128, 512), (512, 128))),
    "uncond_plus": subject(spec=FlowSpec(guidance_formula="uncond_plus"), case=Case(guidance_scale=7.5)),
    "multiple of 64": subject(
        spec=FlowSpec(latent_channels=4, downsampling=8, size_multiple=64), case=Case(height=512, width=320)
    ),
}
EACH = pytest.mark.parametrize("of", SUBJECTS.values(), ids=SUBJECTS)
SOME = settings(
    max_examples=12, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
)
ASKS = ("FM204", "FM801")


def small(*shape: float, **rest: object) -> Call:
    """A call of B prompts, h x w cells, K steps and a weight, which default to the least."""
    B, h, w, K, weight = (*shape, *(1, 1, 1, 1, 0.0)[len(shape) :])
    case = SMALL.case.with_batch(int(B)).but(height=8 * int(h), width=8 * int(w), num_steps=int(K))
    return Call(case=case.but(guidance_scale=float(weight))).but(**rest)


def one(*shape: float, **rest: object) -> Scenario:
    return Scenario((small(*shape, **rest),))


LEAST = one(1, prompts=SMALL.case.prompts[:1])


def end_of(start: Scenario, fails: Callable[[Scenario], bool], of: Subject = SMALL, most: int = 2000) -> Scenario:
    """The last of the polished scenarios; all of them fail, and there are not endlessly many."""
    reached = start
    for count, scenario in enumerate(polished(start, of, fails)):
        assert fails(scenario)
        assert count < most, "polishing does not end"
        reached = scenario
    return reached


@EACH
def test_candidates_are_legal_and_different_and_cost_no_more(of: Subject) -> None:
    @SOME
    @given(scenarios(of, asks=ASKS))
    def drawn(scenario: Scenario) -> None:
        for candidate in itertools.islice(simpler(scenario, of), 400):
            assert candidate != scenario
            assert candidate.cost <= scenario.cost
            assert len(candidate.calls) <= len(scenario.calls)
            assert set(candidate.asks) <= set(scenario.asks)
            for call in candidate.calls:
                of.but(case=call.case)
                assert of.sizes is None or (call.case.height, call.case.width) in of.sizes
                assert call.case.dtype in of.dtypes

    drawn()


@EACH
def test_what_always_fails_ends_at_the_simplest_scenario(of: Subject) -> None:
    multiple = of.spec.multiple
    height, width = min(of.sizes or ((multiple, multiple),), key=lambda size: (size[0] * size[1], size))

    @SOME
    @given(scenarios(of, asks=ASKS))
    def drawn(scenario: Scenario) -> None:
        reached = end_of(scenario, lambda other: True, of)
        case = reached.last.case
        assert len(reached.calls) == 1
        assert reached.asks == ()
        assert (case.batch, case.height, case.width, case.num_steps) == (1, height, width, 1)
        assert (case.guidance_scale, case.seed, case.dtype) == (of.spec.neutral_scale, 0, of.case.dtype)
        assert case.prompts == ("",)
        assert reached.last == Call(case=case)

    drawn()


def by_hash(salt: int, share: int) -> Callable[[Scenario], bool]:
    """A condition without any sense: `share` of 256 scenarios fail."""

    def fails(scenario: Scenario) -> bool:
        return hashlib.blake2b(f"{salt}{scenario.as_table()}".encode(), digest_size=1).digest()[0] < share

    return fails


@pytest.mark.parametrize("share", [20, 128, 230])
def test_adversarial_conditions_come_to_an_end_where_no_candidate_fails(share: int) -> None:
    @SOME
    @given(scenarios(SMALL, asks=ASKS), st.integers(0, 10**6))
    def drawn(scenario: Scenario, salt: int) -> None:
        chance = by_hash(salt, share)

        def fails(other: Scenario) -> bool:
            return other == scenario or chance(other)

        reached = end_of(scenario, fails)
        passed = {scenario, *polished(scenario, SMALL, fails)}
        assert [other for other in simpler(reached, SMALL) if fails(other) and other not in passed] == []

    drawn()


def test_nothing_fails_but_the_start() -> None:
    start = Scenario((small(3, 2, 5, 4, 1.5), small(2, seed=7)), ASKS)
    assert list(polished(start, SMALL, lambda scenario: scenario == start)) == []


# The condition, where it starts, and the least (B, h, w, K, weight).
JOINT: dict[str, tuple[Callable[[Axes], bool], tuple[float, ...], tuple[float, ...]]] = {
    "B = w": (lambda a: a.w == a.B, (5, 3, 5), (1, 1, 1)),
    "B = w > 1": (lambda a: a.B == a.w > 1, (5, 3, 5), (2, 1, 2)),
    "B = h > 1": (lambda a: a.B == a.h > 1, (5, 5, 2), (2, 2, 1)),
    "B = h = w > 1": (lambda a: a.B == a.h == a.w > 1, (6, 6, 6), (2, 2, 2)),
    "2B = h": (lambda a: a.h == 2 * a.B, (3, 6, 4), (1, 2, 1)),
    "2B = h > 2": (lambda a: 2 * a.B == a.h > 2, (5, 10, 4), (2, 4, 1)),
    "2B = w > 2": (lambda a: 2 * a.B == a.w > 2, (5, 1, 10), (2, 1, 4)),
    "h = w > 2": (lambda a: a.h == a.w > 2, (2, 6, 6), (1, 3, 3)),
    "h w = C": (lambda a: a.h * a.w == a.C, (3, 1, 2), (1, 1, 2)),
    "h w = 4 C": (lambda a: a.h * a.w == 4 * a.C, (3, 1, 8), (1, 2, 4)),
    "B h = 2 w, not 1": (lambda a: a.B * a.h == 2 * a.w and a.w > 1, (4, 3, 6), (1, 4, 2)),
    "B = w, not h": (lambda a: a.B == a.w != a.h, (5, 3, 5), (2, 1, 2)),
    "h > w": (lambda a: a.h > a.w, (2, 7, 3), (1, 2, 1)),
    "B > 4 and K > 3": (lambda a: a.B > 4 and a.K > 3, (7, 2, 3, 8), (5, 1, 1, 4)),
    "w > 1 and K = 2 and weight": (
        lambda a: a.w > 1 and a.K == 2 and a.weight != 0,
        (3, 3, 3, 2, 7.5),
        (1, 1, 2, 2, 1),
    ),
}


@pytest.mark.parametrize(("condition", "start", "least"), JOINT.values(), ids=JOINT)
def test_axes_become_smaller_together(
    condition: Callable[[Axes], bool], start: tuple[float, ...], least: tuple[float, ...]
) -> None:
    reached = end_of(one(*start, seed=12345), last(condition))
    found = axes(reached.last)
    expected = axes(small(*least))
    cost = expected.B * expected.h * expected.w * expected.K
    assert found.B * found.h * found.w * found.K == cost, found
    assert (found.K, abs(found.weight), found.seed) == (expected.K, abs(expected.weight), 0)
    assert condition(found)


@pytest.mark.parametrize(
    ("condition", "weight", "least"),
    [
        (lambda weight: weight > 0, 7.5, 1.0),
        (lambda weight: weight < 0, -7.5, -1.0),
        (lambda weight: weight > 4, 7.512, 7.0),
        (lambda weight: weight != int(weight), 0.5, 0.5),
        (lambda weight: abs(weight) >= 65504, 1e5, 1e5),
        (lambda weight: True, 1e5, 0.0),
    ],
)
def test_scales_become_whole_and_near_the_neutral_one(
    condition: Callable[[float], bool], weight: float, least: float
) -> None:
    reached = end_of(one(2, 3, 4, 5, weight), last(lambda a: condition(a.weight)))
    assert axes(reached.last).weight == least


def test_the_neutral_scale_of_the_other_convention_is_one() -> None:
    of = SUBJECTS["uncond_plus"]
    reached = end_of(Scenario((Call(case=of.case),)), lambda scenario: axes(scenario.last, of).weight > 0, of)
    assert reached.last.case.guidance_scale == 2.0


def test_what_the_last_call_needs_of_the_calls_before_stays_and_nothing_else() -> None:
    """A cache keyed by the width alone: two calls of one width and different heights, among others."""

    def fails(scenario: Scenario) -> bool:
        seen: dict[int, int] = {}
        return any(seen.setdefault(a.w, a.h) != a.h for a in map(axes, scenario.calls))

    history = tuple(small(2, h, w, 3, 1.5, seed=9, global_seed=4) for h, w in [(2, 3), (4, 5), (6, 2), (2, 5), (1, 1)])
    reached = end_of(Scenario(history, ASKS), fails)
    assert len(reached.calls) == 2
    assert reached.asks == ()
    first, second = map(axes, reached.calls)
    assert (first.w, second.w) == (1, 1)
    assert sorted([first.h, second.h]) == [1, 2]
    assert {(a.B, a.K, a.weight, a.seed) for a in (first, second)} == {(1, 1, 0.0, 0)}
    assert {call.global_seed for call in reached.calls} == {None}


def test_a_long_history_is_halved_and_not_taken_off_call_by_call() -> None:
    tried = 0

    def fails(scenario: Scenario) -> bool:
        nonlocal tried
        tried += 1
        return any(call.case.seed == 7 for call in scenario.calls[:-1])

    history = tuple(small(seed=7 if place == 40 else 1000 + place) for place in range(64))
    reached = end_of(Scenario(history), fails)
    assert [call.case.seed for call in reached.calls] == [7, 0]
    assert tried < 400


@pytest.mark.parametrize(
    "kept",
    [
        {"tokens": "padded"},
        {"tokens": "masked"},
        {"kind": "loss"},
        {"global_seed": 0},
        {"dtype": "bfloat16"},
        {"seed": 1},
        {"prompts": ("a a",)},
    ],
    ids=str,
)
def test_only_what_it_takes_is_kept(kept: dict[str, object]) -> None:
    of = SUBJECTS["able"]
    every = {"tokens": "plain", "global_seed": 5, "dtype": "bfloat16", "seed": 1, "prompts": ("a a",), **kept}
    start = Scenario((Call(case=of.case).but(**every),), ASKS)

    def fails(scenario: Scenario) -> bool:
        call = scenario.last
        flat = {**vars(call), **vars(call.case)}
        return all(flat[name] == value for name, value in kept.items())

    least = Call(case=of.case).but(prompts=("",), height=32, width=32, num_steps=1, guidance_scale=0.0)
    assert end_of(start, fails, of) == Scenario((least.but(**kept),))


def test_the_asked_rule_that_fails_is_asked_alone() -> None:
    start = Scenario((small(2, 3, 4, 5, 1.0),), ("FM204", "FM801", "FM806"))
    found = list(polished(start, SMALL, lambda scenario: "FM801" in scenario.asks, "FM801"))
    assert found[-1].asks == ("FM801",)
    assert found[0].asks == ("FM801",), "at the first try"


def test_every_way_to_change_one_thing_is_tried() -> None:
    start = Scenario((small(2, 2, 2, 2, 1.0, seed=5, global_seed=3), small(1, 1, 2)), ("FM204",))

    def changes() -> Iterator[str]:
        for other in simpler(start, SMALL):
            if len(other.calls) < len(start.calls):
                yield "calls"
            elif other.asks != start.asks:
                yield "asks"
            else:
                yield from (
                    name
                    for before, after in zip(start.calls, other.calls, strict=True)
                    for name, value in {**vars(before), **vars(before.case)}.items()
                    if name != "case" and {**vars(after), **vars(after.case)}[name] != value
                )

    assert set(changes()) >= {
        *("calls", "asks", "prompts", "height", "width", "num_steps", "guidance_scale", "seed", "global_seed")
    }
