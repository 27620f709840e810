"""What a campaign says it has looked at, the sum of several, and the profiles that say how far it goes."""

from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis.database import InMemoryExampleDatabase

from fmcheck.errors import DeclarationError
from fmcheck.fuzz import Find, FuzzReport
from fmcheck.fuzz.coverage import Coverage
from fmcheck.fuzz.profiles import limits_of, profile, register_profiles
from fmcheck.fuzz.workers import merged
from fmcheck.scenario import Call, Scenario
from fmcheck.trial import Verdict
from tests.fuzz.fuzz_fakes import SMALL, broken


def call(batch: int = 1, h: int = 1, w: int = 1, steps: int = 1, scale: float = 0.0, **rest: object) -> Call:
    case = SMALL.case.with_batch(batch).but(height=8 * h, width=8 * w, num_steps=steps, guidance_scale=scale)
    return Call(case=case).but(**rest)


def noted(*scenarios: Scenario, judged: tuple[str, ...] = ()) -> Coverage:
    coverage = Coverage()
    for scenario in scenarios:
        coverage.note(scenario, Verdict(judged=judged), SMALL)
    return coverage


def test_every_call_is_counted_on_every_axis() -> None:
    coverage = noted(
        Scenario((call(2, 1, 4, 3, 2.0), call(1, 4, 1, kind="loss", prompts=("",)))),
        Scenario((call(3, 4, 5, 3, -0.5),), ("FM204",)),
        judged=("FM203",),
    )
    assert coverage.judged == {"FM203": 2}
    assert coverage.axes["calls"] == {2: 1, 1: 1}
    assert coverage.axes["rules asked"] == {0: 1, 1: 1}
    assert coverage.axes["batch"] == {1: 1, 2: 1, 3: 1}
    assert coverage.axes["size"] == {"8x32": 1, "32x8": 1, "32x40": 1}
    assert coverage.axes["aspect"] == {"wide, beyond 3:1": 1, "tall, beyond 3:1": 1, "wide": 1}
    assert coverage.axes["steps"] == {3: 2, 1: 1}
    assert coverage.axes["guidance"] == {"1 to 20": 1, "off": 1, "negative": 1}
    assert coverage.axes["kind"] == {"generate": 2, "loss": 1}
    assert coverage.axes["prompts"] == {"different": 2, "one, empty": 1}


@pytest.mark.parametrize(
    ("shape", "names"),
    [
        ((4, 3, 5), {"all distinct"}),
        ((3, 4, 3), {"B = w"}),
        ((3, 3, 4), {"B = h"}),
        ((1, 3, 3), {"h = w"}),
        ((3, 1, 2), {"h w = C"}),
        ((2, 2, 2), {"B = w", "B = h", "h = w"}),
    ],
)
def test_coincidences(shape: tuple[int, int, int], names: set[str]) -> None:
    assert set(noted(Scenario((call(*shape),))).coincidences) == names


@pytest.mark.parametrize(
    ("scale", "name"),
    [(0, "off"), (-0.1, "negative"), (0.5, "below 1"), (1, "1 to 20"), (20, "1 to 20"), (65504, "huge")],
)
def test_classes_of_guidance(scale: float, name: str) -> None:
    assert noted(Scenario((call(scale=scale),))).axes["guidance"] == {name: 1}


def test_lines_show_few_values_one_by_one_and_many_by_their_span() -> None:
    lines = dict(noted(*(Scenario((call(steps=steps),)) for steps in range(1, 11))).lines())
    assert lines["steps"] == "10 different, 1 to 10"
    assert lines["batch"] == "1 (10)"
    assert lines["coincidences"].startswith("B = w (10)")


def test_merging_adds_up() -> None:
    one, other = noted(Scenario((call(),)), judged=("A",)), noted(Scenario((call(2),)), judged=("A", "B"))
    one.merge(other)
    assert one.axes["batch"] == {1: 1, 2: 1}
    assert one.coincidences["h = w"] == 2
    assert one.judged == {"A": 2, "B": 1}
    assert other.judged == {"A": 1, "B": 1}


def found(code: str, scenario: Scenario, *, shrunk: bool = True) -> Find:
    return Find(code=code, scenario=scenario, findings=(broken(code),), first=scenario, example=1, shrunk=shrunk)


def report(*finds: Find, **fields: object) -> FuzzReport:
    plain = FuzzReport(
        subject="small",
        finds=finds,
        examples=10,
        runs=15,
        coverage=noted(Scenario((call(),))),
        refused={"tokenize": 2},
        unsteady=(broken("MY009"),),
        seconds=3.0,
    )
    return replace(plain, **fields)  # type: ignore[arg-type]


def test_reports_of_several_are_one_with_the_simplest_find_of_every_rule() -> None:
    large, least, unfinished = (
        found("MY001", Scenario((call(4, 2, 2),))),
        found("MY001", Scenario((call(2),))),
        found("MY001", Scenario((call(1),)), shrunk=False),
    )
    other = found("MY000", Scenario((call(),)))
    one = merged([report(large), report(least, other, seconds=9.0), report(unfinished, refused={"build": 1})])
    assert one.finds == (other, least)
    assert (one.examples, one.runs, one.seconds) == (30, 45, 9.0)
    assert one.refused == {"tokenize": 4, "build": 1}
    assert len(one.unsteady) == 3
    assert one.coverage.axes["batch"] == {1: 3}
    assert not one.interrupted
    assert merged([report(), report(interrupted=True)]).interrupted


def test_the_gate_draws_the_same_every_time_and_keeps_nothing() -> None:
    chosen = profile("gate")
    assert (chosen.max_examples, chosen.derandomize, chosen.database) == (50, True, None)
    limits, database = limits_of(chosen)
    assert (limits.examples, limits.seed, database) == (50, 0, None)


def test_nightly_draws_many_new_ones() -> None:
    chosen = profile("nightly")
    assert (chosen.max_examples, chosen.derandomize) == (2000, False)
    assert limits_of(chosen)[0].seed != limits_of(chosen)[0].seed
    assert limits_of(chosen, seed=5, strict=True)[0].seed == 5
    assert limits_of(chosen, strict=True)[0].strict


def test_a_profile_of_ones_own() -> None:
    database = InMemoryExampleDatabase()
    settings.register_profile("mine", max_examples=7, database=database)
    limits, kept = limits_of(profile("mine"))
    assert (limits.examples, kept) == (7, database)


def test_registering_twice_is_no_error_and_loads_none() -> None:
    before = settings.get_current_profile_name()
    register_profiles()
    register_profiles()
    assert settings.get_current_profile_name() == before


def test_an_unknown_profile_names_the_nearest() -> None:
    with pytest.raises(DeclarationError) as caught:
        profile("nigthly")
    assert str(caught.value) == (
        "fuzz: profile 'nigthly': expected gate or nightly, or a profile registered with Hypothesis; "
        "did you mean 'nightly'?"
    )
