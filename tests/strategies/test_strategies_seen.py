"""What a campaign draws: distinct axes in one half, forced coincidences in the other, every odd corner soon."""

import math
from collections.abc import Callable

import pytest

from fmcheck.case import Case
from fmcheck.scenario import Call, Scenario
from fmcheck.spec import FlowSpec
from fmcheck.subject import Subject
from tests.fuzz.fuzz_fakes import able, axes, drawn

DRAWS = 300
HOUSE = able("house", dtypes=("float32", "bfloat16"))
SMALL_CELLS = able("small cells", spec=FlowSpec(latent_channels=4, downsampling=8), case=Case(height=64, width=96))
ASKS = ("FM204", "FM801")


@pytest.fixture(scope="module", params=[HOUSE, SMALL_CELLS], ids=lambda of: of.name)
def seen(request: pytest.FixtureRequest) -> tuple[Subject, list[Scenario]]:
    """A subject, and what a campaign of it draws."""
    return request.param, drawn(request.param, DRAWS, asks=ASKS)


def distinct(of: Subject, call: Call) -> bool:
    a = axes(call, of)
    return len({a.B, a.h, a.w, a.C, a.h * a.w}) == 5


def coinciding(of: Subject, call: Call) -> bool:
    a = axes(call, of)
    return a.B in (1, a.h, a.w) or a.w == 2 * a.B or a.h == a.w or a.h * a.w == a.C


@pytest.mark.parametrize("holds", [distinct, coinciding])
def test_half_of_the_cases(seen: tuple[Subject, list[Scenario]], holds: Callable[[Subject, Call], bool]) -> None:
    """Six of 13 modes ask for either; the first of every nine draws is the simplest case.

    So each is expected in at least 6/13 * 8/9 = 41% of the draws; four standard deviations of a binomial below that
    (30% of 300 draws) a sound strategy comes with probability 3e-5.
    """
    of, scenarios = seen
    share = sum(holds(of, scenario.calls[0]) for scenario in scenarios) / len(scenarios)
    expected = 6 / 13 * 8 / 9
    allowed = 4 * math.sqrt(expected * (1 - expected) / len(scenarios))
    assert expected - allowed <= share <= 1 - expected + allowed, share


def scale_of(call: Call, of: Subject) -> float:
    return axes(call, of).weight


# What must be seen; of a scenario's first call, unless it is about the scenario.
CORNERS: dict[str, Callable[[Subject, Scenario], bool]] = {
    "B = w": lambda of, s: axes(s.calls[0], of).B == axes(s.calls[0], of).w > 1,
    "B = h": lambda of, s: axes(s.calls[0], of).B == axes(s.calls[0], of).h > 1,
    "2B = w": lambda of, s: axes(s.calls[0], of).w == 2 * axes(s.calls[0], of).B,
    "h = w": lambda of, s: axes(s.calls[0], of).h == axes(s.calls[0], of).w > 1,
    "h w = C": lambda of, s: axes(s.calls[0], of).h * axes(s.calls[0], of).w == axes(s.calls[0], of).C,
    "B = 1": lambda of, s: axes(s.calls[0], of).B == 1,
    "B > 6": lambda of, s: axes(s.calls[0], of).B > 6,
    "K = 1": lambda of, s: axes(s.calls[0], of).K == 1,
    "K > 10": lambda of, s: axes(s.calls[0], of).K > 10,
    "tall, beyond 3:1": lambda of, s: axes(s.calls[0], of).h > 3 * axes(s.calls[0], of).w,
    "wide, beyond 3:1": lambda of, s: axes(s.calls[0], of).w > 3 * axes(s.calls[0], of).h,
    "longer than native": lambda of, s: max(s.calls[0].case.height, s.calls[0].case.width) > of.case.width,
    "w = 0": lambda of, s: scale_of(s.calls[0], of) == 0,
    "negative w": lambda of, s: scale_of(s.calls[0], of) < 0,
    "fraction": lambda of, s: scale_of(s.calls[0], of) % 1 != 0,
    "huge w": lambda of, s: scale_of(s.calls[0], of) >= 65504,
    "seed 0": lambda of, s: s.calls[0].case.seed == 0,
    "seed beyond 32 bits": lambda of, s: s.calls[0].case.seed >= 2**32,
    "padded": lambda of, s: any(call.tokens == "padded" for call in s.calls),
    "masked": lambda of, s: any(call.tokens == "masked" for call in s.calls),
    "loss": lambda of, s: any(call.kind == "loss" for call in s.calls),
    "global seed": lambda of, s: any(call.global_seed is not None for call in s.calls),
    "no global seed": lambda of, s: any(call.global_seed is None for call in s.calls),
    "empty prompt": lambda of, s: any("" in call.case.prompts for call in s.calls),
    "all prompts empty": lambda of, s: any(call.case.prompts == ("",) * call.case.batch for call in s.calls),
    "equal prompts": lambda of, s: any(len(set(call.case.prompts)) < call.case.batch for call in s.calls),
    "long prompt": lambda of, s: any(
        len(prompt.split()) > max(len(native.split()) for native in of.case.prompts)
        for call in s.calls
        for prompt in call.case.prompts
    ),
    "one call": lambda of, s: len(s.calls) == 1,
    "two calls": lambda of, s: len(s.calls) == 2,
    "three calls": lambda of, s: len(s.calls) == 3,
    "one call twice": lambda of, s: len(set(s.calls)) < len(s.calls),
    "size turned": lambda of, s: any(
        (one.case.height, one.case.width) == (two.case.width, two.case.height) != (two.case.height, two.case.width)
        for one, two in zip(s.calls, s.calls[1:], strict=False)
    ),
    "only the seed changed": lambda of, s: any(
        one != two and one.but(seed=two.case.seed) == two for one, two in zip(s.calls, s.calls[1:], strict=False)
    ),
    "a rule asked": lambda of, s: bool(s.asks),
    "two rules asked": lambda of, s: len(s.asks) > 1,
}


@pytest.mark.parametrize("name", CORNERS)
def test_every_corner_is_seen_within_300_draws(seen: tuple[Subject, list[Scenario]], name: str) -> None:
    of, scenarios = seen
    assert any(CORNERS[name](of, scenario) for scenario in scenarios[:300])


def test_other_dtypes_are_seen_and_the_native_one_more_often() -> None:
    dtypes = [scenario.last.case.dtype for scenario in drawn(HOUSE, 100)]
    assert 10 <= dtypes.count("bfloat16") <= 40


def test_draws_do_not_repeat_themselves_much(seen: tuple[Subject, list[Scenario]]) -> None:
    _, scenarios = seen
    assert len(set(scenarios)) == len(scenarios), "a campaign judges nothing twice"


def test_nothing_is_asked_or_disturbed_that_the_subject_does_not_declare() -> None:
    for scenario in drawn(HOUSE.but(tokenize=None, pad=None, masked=None, loss=None, dtypes=("float32",)), 100):
        assert scenario.asks == ()
        assert {(call.kind, call.tokens, call.case.dtype) for call in scenario.calls} == {
            ("generate", "plain", "float32")
        }
