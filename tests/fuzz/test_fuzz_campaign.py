"""A campaign finds the failure of every rule by itself, shrinks it, keeps it, and ends when it is told to."""

import itertools
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis.database import InMemoryExampleDatabase
from hypothesis.errors import HypothesisException
from hypothesis.strategies import SearchStrategy, sampled_from

from fmcheck.case import Case
from fmcheck.errors import DeclarationError, InternalError
from fmcheck.fuzz import Find, FuzzReport, Limits
from fmcheck.scenario import Call, Scenario
from fmcheck.trial import CRASH, HANG, MEMORY, Verdict, failure
from tests.fuzz.fuzz_fakes import SMALL, Axes, Condition, Fake, axes, broken, campaign, last

WIDE = last(lambda a: a.w > 3)
BATCH_IS_WIDTH = last(lambda a: a.B == a.w > 2)


def by_code(report: FuzzReport) -> dict[str, Find]:
    return {found.code: found for found in report.finds}


class TestFinds:
    def test_nothing_is_found_where_nothing_fails(self) -> None:
        executor = Fake({"MY001": lambda scenario: False})
        report = campaign(executor, examples=60).run()
        assert report.finds == ()
        assert (report.examples, report.runs, len(executor.asked)) == (60, 60, 60)
        assert report.unsteady == ()
        assert report.refused == {}
        assert not report.interrupted
        assert report.subject == "small"
        assert report.coverage.judged == {"MY001": 60}

    def test_each_rule_is_reported_and_shrunk_by_itself(self) -> None:
        """Where the rarer one fails, the common one always does."""
        rare = last(lambda a: a.w > 3 and a.w == a.B)
        report = campaign({"MY001": WIDE, "MY002": rare}, examples=100).run()
        finds = by_code(report)
        assert set(finds) == {"MY001", "MY002"}
        common, hidden = (axes(finds[code].scenario.last) for code in ("MY001", "MY002"))
        assert (common.B, common.h, common.w, common.K) == (1, 1, 4, 1)
        assert (hidden.B, hidden.h, hidden.w, hidden.K) == (4, 1, 4, 1)
        for code, found in finds.items():
            assert found.shrunk
            assert [finding.code for finding in found.findings] == [code]
            assert WIDE(found.first)
            assert 1 <= found.example <= report.examples
        assert finds["MY001"].example <= finds["MY002"].example

    def test_the_search_goes_on_after_a_find(self) -> None:
        report = campaign({"MY001": lambda scenario: True}, examples=50).run()
        assert report.examples == 50
        assert len(report.finds) == 1

    def test_finds_are_sorted_by_code(self) -> None:
        rules: dict[str, Condition] = dict.fromkeys(("ZZ001", "MY002", "AB003"), WIDE)
        assert [found.code for found in campaign(rules).run().finds] == ["AB003", "MY002", "ZZ001"]

    def test_failures_are_announced_before_they_are_shrunk_and_again_after(self) -> None:
        events: list[tuple[str, str, bool]] = []
        search = campaign({"MY001": WIDE, "MY002": WIDE})
        search.on_first = lambda found: events.append(("first", found.code, found.shrunk))
        search.on_find = lambda found: events.append(("find", found.code, found.shrunk))
        search.run()
        assert events == [
            ("first", "MY001", False),
            ("first", "MY002", False),
            ("find", "MY001", True),
            ("find", "MY002", True),
        ]

    def test_a_warning_fails_only_a_strict_campaign(self) -> None:
        for strict in (False, True):
            executor = Fake({"MY001": WIDE}, severities={"MY001": "warning"})
            assert len(campaign(executor, strict=strict).run().finds) == strict

    def test_a_note_fails_none(self) -> None:
        executor = Fake({"MY001": WIDE}, severities={"MY001": "note"})
        assert campaign(executor).run().finds == ()

    def test_two_calls_are_found_and_kept(self) -> None:
        """A table of the first call's height that the second one reads."""

        def grows(scenario: Scenario) -> bool:
            heights = [axes(call).h for call in scenario.calls]
            return any(before < after for before, after in itertools.pairwise(heights))

        (found,) = campaign({"MY001": grows}, examples=100).run().finds
        assert found.shrunk
        assert [(a.B, a.h, a.w, a.K) for a in map(axes, found.scenario.calls)] == [(1, 1, 1, 1), (1, 2, 1, 1)]

    @pytest.mark.parametrize("code", [CRASH, HANG, MEMORY])
    def test_what_ends_a_process_is_a_find_and_the_campaign_goes_on(self, code: str) -> None:
        class Dying(Fake):
            def judge(self, scenario: Scenario, *, fresh: bool) -> Verdict:
                verdict = super().judge(scenario, fresh=fresh)
                return failure(code, "it ended", scenario) if BATCH_IS_WIDTH(scenario) else verdict

        report = campaign(Dying({"MY001": WIDE}), examples=80).run()
        finds = by_code(report)
        assert set(finds) == {code, "MY001"}
        assert report.examples == 80
        assert axes(finds[code].scenario.last).B == 3

    def test_errors_of_the_subject_and_of_fmcheck_leave_the_campaign(self) -> None:
        for error in (DeclarationError("build raised"), InternalError("rule broke")):

            class Raising(Fake):
                def judge(self, scenario: Scenario, *, fresh: bool, error: Exception = error) -> Verdict:
                    raise error

            with pytest.raises(type(error), match=str(error)):
                campaign(Raising()).run()


class TestEqualSeeds:
    RULES = {"MY001": WIDE, "MY002": BATCH_IS_WIDTH, "MY003": last(lambda a: a.weight < -1 and a.K > 2)}

    def run(self, seed: int) -> tuple[list[Scenario], FuzzReport]:
        executor = Fake(dict(self.RULES))
        report = campaign(executor, seed=seed).run()
        return [scenario for scenario, _ in executor.asked], report

    def test_equal_seeds_run_the_same_scenarios_and_find_the_same(self) -> None:
        (first, one), (second, other) = self.run(7), self.run(7)
        assert first == second
        assert one.finds == other.finds
        assert len(one.finds) == 3
        assert (one.examples, one.runs, one.coverage) == (other.examples, other.runs, other.coverage)

    def test_other_seeds_run_others(self) -> None:
        assert self.run(1)[0] != self.run(2)[0]


class TestLimits:
    @pytest.mark.parametrize("examples", [1, 10, 23])
    def test_examples(self, examples: int) -> None:
        assert campaign({}, examples=examples).run().examples == examples

    def test_progress_is_told_after_every_example(self) -> None:
        counts: list[int] = []
        search = campaign({"MY001": WIDE}, examples=30)
        search.on_example = counts.append
        search.run()
        assert counts == sorted(counts)
        assert set(counts) == set(range(1, 31))

    def test_seconds(self) -> None:
        executor = Fake(hook=lambda scenario: time.sleep(0.01))
        started = time.monotonic()
        report = campaign(executor, examples=None, seconds=0.5).run()
        assert 0.5 <= time.monotonic() - started < 30
        assert report.examples <= 50

    def test_the_first_of_both_ends_it(self) -> None:
        assert campaign({}, examples=5, seconds=600.0).run().examples == 5
        executor = Fake(hook=lambda scenario: time.sleep(0.05))
        assert campaign(executor, examples=10**6, seconds=0.2).run().examples <= 5

    def test_a_small_space_is_no_endless_search(self) -> None:
        """When everything was judged, examples no longer grow, and the campaign ends by itself."""
        only = Scenario((Call(case=SMALL.case),))
        assert campaign({}, strategy=sampled_from([only]), examples=200).run().examples == 1

    def test_the_shrink_clock_ends_shrinking_and_says_so(self) -> None:
        executor = Fake({"MY001": last(lambda a: a.w > 2 and a.K > 2 and a.B > 2)})
        executor.hook = lambda scenario: time.sleep(0.02 if any(True for _ in executor.asked[60:]) else 0)
        started = time.monotonic()
        (found,) = campaign(executor, examples=61, shrink_seconds=0.2).run().finds
        assert time.monotonic() - started < 10
        assert executor.rules["MY001"](found.scenario)
        assert found.findings

    def test_an_impossible_shrink_clock_keeps_the_first_scenario(self) -> None:
        (found,) = campaign({"MY001": WIDE}, shrink_seconds=1e-9).run().finds
        assert not found.shrunk
        assert found.scenario == found.first

    def test_the_clock_never_leaks(self) -> None:
        """OutOfTime is no Exception, so nobody above would catch it."""
        rules = {f"MY{number:03}": last(lambda a, n=number: a.w >= n) for number in range(2, 8)}
        for seconds in (1e-9, 1e-3, 0.01):
            report = campaign(dict(rules), examples=20, shrink_seconds=seconds).run()
            assert report.examples == 20
            report = campaign(dict(rules), examples=None, seconds=0.1, shrink_seconds=seconds).run()
            assert report.seconds < 5

    @pytest.mark.parametrize(
        ("limits", "message"),
        [
            ({"examples": None}, "fuzz: expected a number of examples, a time, or both; found neither"),
            ({"examples": 0}, "fuzz: examples: expected a positive integer; found 0"),
            ({"examples": 2.5}, "fuzz: examples: expected a positive integer; found 2.5"),
            ({"examples": True}, "fuzz: examples: expected a positive integer; found True"),
            ({"seconds": 0}, "fuzz: seconds: expected a number above 0; found 0"),
            ({"seconds": float("nan")}, "fuzz: seconds: expected a number above 0; found nan"),
            ({"shrink_seconds": -1.0}, "fuzz: shrink_seconds: expected a number above 0; found -1.0"),
            ({"shrink_seconds": None}, "fuzz: shrink_seconds: expected a number above 0; found None"),
            ({"seed": -1}, "fuzz: seed: expected an integer from 0; found -1"),
            ({"seed": False}, "fuzz: seed: expected an integer from 0; found False"),
            ({"seed": 0.0}, "fuzz: seed: expected an integer from 0; found 0.0"),
        ],
    )
    def test_wrong_limits(self, limits: dict[str, Any], message: str) -> None:
        with pytest.raises(DeclarationError) as caught:
            Limits(**limits)
        assert str(caught.value) == message


class TestDatabase:
    def test_a_find_is_replayed_first_in_the_next_campaign(self) -> None:
        database = InMemoryExampleDatabase()
        (found,) = campaign({"MY001": BATCH_IS_WIDTH}, database=database, codes=("MY001",)).run().finds
        executor = Fake({"MY001": BATCH_IS_WIDTH})
        (again,) = campaign(executor, database=database, codes=("MY001",), examples=1, seed=99).run().finds
        assert again.example == 0
        assert again.scenario == found.scenario
        assert again.shrunk
        assert BATCH_IS_WIDTH(executor.asked[0][0])

    def test_one_that_was_fixed_is_forgotten(self) -> None:
        database = InMemoryExampleDatabase()
        campaign({"MY001": BATCH_IS_WIDTH}, database=database, codes=("MY001",)).run()
        assert campaign({"MY001": lambda s: False}, database=database, codes=("MY001",), examples=1).run().finds == ()
        executor = Fake({"MY001": BATCH_IS_WIDTH})
        campaign(executor, database=database, codes=("MY001",), examples=1, seed=99).run()
        assert not BATCH_IS_WIDTH(executor.asked[0][0]), "nothing was replayed"

    def test_rules_are_kept_apart(self) -> None:
        database = InMemoryExampleDatabase()
        rules = {"MY001": WIDE, "MY002": BATCH_IS_WIDTH}
        campaign(dict(rules), database=database, codes=tuple(rules), examples=80).run()
        one_fixed = {"MY001": lambda s: False, "MY002": BATCH_IS_WIDTH}
        report = campaign(one_fixed, database=database, codes=tuple(rules), examples=1, seed=5).run()
        assert [(found.code, found.example) for found in report.finds] == [("MY002", 0)]

    def test_subjects_are_kept_apart(self) -> None:
        database = InMemoryExampleDatabase()
        campaign({"MY001": WIDE}, database=database, codes=("MY001",)).run()
        executor = Fake({"MY001": WIDE})
        other = SMALL.but(name="another")
        campaign(executor, of=other, database=database, codes=("MY001",), examples=1).run()
        assert not WIDE(executor.asked[0][0])

    def test_codes_that_are_not_judged_are_not_replayed(self) -> None:
        database = InMemoryExampleDatabase()
        campaign({"MY001": WIDE}, database=database, codes=("MY001",)).run()
        executor = Fake({"MY001": WIDE})
        campaign(executor, database=database, codes=("MY002",), examples=1).run()
        assert not WIDE(executor.asked[0][0])

    def test_examples_of_another_strategy_do_no_harm(self) -> None:
        database = InMemoryExampleDatabase()
        campaign({"MY001": WIDE}, database=database, codes=("MY001",)).run()
        only: SearchStrategy[Scenario] = sampled_from([Scenario((Call(case=SMALL.case),))])
        for strategy in (only, None):
            campaign(
                {"MY001": WIDE}, strategy=strategy, database=database, codes=("MY001",), examples=None, seconds=3.0
            ).run()

    def test_nothing_is_left_of_the_search_itself(self) -> None:
        database = InMemoryExampleDatabase()
        campaign({"MY001": WIDE, "MY002": BATCH_IS_WIDTH}, database=database, examples=80).run()
        kept = {key for key, values in database.data.items() if values}
        assert all(b"MY00" in key for key in kept), kept
        assert {key for key in kept if key.endswith((b"MY001", b"MY002"))} == {
            b"fmcheck small MY001",
            b"fmcheck small MY002",
        }


class Wearing(Fake):
    """An object that fails from its n-th call on; new ones start anew."""

    def __init__(self, calls: int) -> None:
        super().__init__()
        self.limit, self.used = calls, 0

    def judge(self, scenario: Scenario, *, fresh: bool) -> Verdict:
        self.asked.append((scenario, fresh))
        before = 0 if fresh else self.used
        if not fresh:
            self.used += len(scenario.calls)
        worn = before + len(scenario.calls) > self.limit
        return Verdict(findings=(broken("MY001"),) if worn else ())

    def renew(self) -> None:
        super().renew()
        self.used = 0


class TestHistories:
    def test_what_only_a_used_object_shows_is_traced_to_the_calls_before(self) -> None:
        executor = Wearing(6)
        report = campaign(executor, examples=60).run()
        (found,) = report.finds
        assert found.shrunk
        assert len(found.scenario.calls) == 7, "as few as it takes"
        assert report.unsteady == ()
        assert executor.renewed >= 1

    def test_what_never_comes_back_is_unsteady_and_no_find(self) -> None:
        class Moody(Fake):
            def judge(self, scenario: Scenario, *, fresh: bool) -> Verdict:
                super().judge(scenario, fresh=fresh)
                return Verdict(findings=(broken("MY001"),) if len(self.asked) == 20 else ())

        executor = Moody()
        report = campaign(executor, examples=60).run()
        assert report.finds == ()
        assert [finding.code for finding in report.unsteady] == ["MY001"]
        assert executor.renewed == 1
        assert report.examples == 60

    def test_a_find_is_always_one_of_new_objects(self) -> None:
        executor = Fake({"MY001": WIDE})
        campaign(executor).run()
        failed = {scenario for scenario, _ in executor.asked if WIDE(scenario)}
        assert {scenario for scenario, fresh in executor.asked if fresh} == failed
        assert len(executor.asked) == len(set(executor.asked)), "no verdict is made twice"


class TestRefusals:
    def test_refused_scenarios_are_counted_by_their_reason(self) -> None:
        executor = Fake({"MY001": lambda scenario: False}, refuses=last(lambda a: a.B > 4))
        report = campaign(executor, examples=80).run()
        refused = sum(axes(scenario.last).B > 4 for scenario, _ in executor.asked)
        assert report.refused == {"tokenize refused the prompts": refused}
        assert refused > 0
        assert report.finds == ()
        assert report.examples == 80


class TestEnds:
    def test_an_interrupt_ends_the_search_and_keeps_what_was_found(self) -> None:
        executor = Fake({"MY001": WIDE})

        def hook(scenario: Scenario) -> None:
            if executor.rules["MY001"](scenario):
                return
            if len(executor.asked) > 150:
                raise KeyboardInterrupt

        executor.hook = hook
        report = campaign(executor, examples=10**6).run()
        assert report.interrupted
        assert [found.code for found in report.finds] == ["MY001"]

    def test_an_interrupt_while_shrinking_keeps_the_find(self) -> None:
        executor = Fake({"MY001": WIDE})
        search = campaign(executor)

        def first(found: Find) -> None:
            def stop(scenario: Scenario) -> None:
                raise KeyboardInterrupt

            executor.hook = stop

        search.on_first = first
        report = search.run()
        (found,) = report.finds
        assert report.interrupted
        assert not found.shrunk
        assert WIDE(found.scenario)

    def test_before_every_run_and_after_all_of_them(self) -> None:
        events: list[object] = []
        executor = Fake({"MY001": WIDE}, hook=lambda scenario: events.append(("run", scenario)))
        search = campaign(executor, examples=20)
        search.before = lambda scenario: events.append(("before", scenario))
        search.after = lambda: events.append("after")
        report = search.run()
        assert events.pop() == "after"
        assert "after" not in events
        told, run = events[::2], events[1::2]
        assert [("run", scenario) for _, scenario in told] == run  # type: ignore[misc]
        assert len(run) == report.runs == len(executor.asked)

    def test_after_an_interrupt_too(self) -> None:
        def stop(scenario: Scenario) -> None:
            raise KeyboardInterrupt

        ended: list[bool] = []
        search = campaign(Fake(hook=stop))
        search.after = lambda: ended.append(True)
        assert search.run().interrupted
        assert ended == [True]

    def test_not_after_an_error_whose_case_is_worth_keeping(self) -> None:
        def fail(scenario: Scenario) -> None:
            raise InternalError("rule broke")

        ended: list[bool] = []
        search = campaign(Fake(hook=fail))
        search.after = lambda: ended.append(True)
        with pytest.raises(InternalError):
            search.run()
        assert ended == []

    def test_the_executor_is_the_callers_to_close(self) -> None:
        executor = Fake()
        campaign(executor, examples=3).run()
        assert not executor.closed

    def test_no_exception_of_hypothesis_leaves_a_campaign(self) -> None:
        try:
            campaign({"MY001": lambda scenario: True, "MY002": WIDE}, examples=30).run()
        except HypothesisException as error:
            pytest.fail(f"leaked: {error!r}")


# Defects: a name, and when the pipeline fails.
DEFECTS: dict[str, Condition] = {
    "B = w": last(lambda a: a.B == a.w > 1),
    "B = h": last(lambda a: a.B == a.h > 1),
    "2B = w": last(lambda a: a.w == 2 * a.B and a.B > 1),
    "h = w": last(lambda a: a.h == a.w > 2),
    "h w = 2 C": last(lambda a: a.h * a.w == 2 * a.C),
    "h not w": last(lambda a: a.h != a.w),
    "beyond 3:1": last(lambda a: a.w > 3 * a.h),
    "odd batch beyond 1": last(lambda a: a.B % 2 == 1 and a.B > 1),
    "B > 2 at one step": last(lambda a: a.B > 2 and a.K == 1),
    "more than 4 steps": last(lambda a: a.K > 4),
    "odd steps and width": last(lambda a: a.K % 2 == 1 and a.w % 2 == 1 and a.K * a.w > 1),
    "K = w": last(lambda a: a.K == a.w > 1),
    "K = B": last(lambda a: a.K == a.B > 1),
    "negative weight": last(lambda a: a.weight < 0),
    "fraction": last(lambda a: a.weight % 1 != 0),
    "weight beyond float16": last(lambda a: abs(a.weight) > 65000),
    "weight on two steps": last(lambda a: a.weight > 1 and a.K >= 2),
    "seed beyond 32 bits": last(lambda a: a.seed >= 2**31),
    "seed not 0 and B = h": last(lambda a: a.seed > 0 and a.h == a.B),
    "everything": last(lambda a: a.B > 1 and a.h > 1 and a.w > 2 and a.K > 1 and a.weight != 0),
}


def smaller(found: Axes) -> Iterator[Scenario]:
    """All single calls whose every number is as small or smaller; of weights and seeds, the plain ones."""
    weights = {0.0, found.weight, *(w for w in (1.0, -1.0, 2.0, -2.0, 3.0) if abs(w) < abs(found.weight))}
    seeds = {seed for seed in (0, 1, found.seed) if seed <= found.seed}
    for B, h, w, K in itertools.product(*(range(1, most + 1) for most in (found.B, found.h, found.w, found.K))):
        for weight, seed in itertools.product(weights, seeds):
            yield Scenario(
                (
                    Call(
                        case=Case(
                            prompts=("",) * B,
                            height=8 * h,
                            width=8 * w,
                            num_steps=K,
                            guidance_scale=weight,
                            seed=seed,
                        )
                    ),
                )
            )


def enough(found: Find) -> None:
    """End the campaign; what was found stands."""
    raise KeyboardInterrupt


@pytest.mark.parametrize("name", DEFECTS)
def test_nothing_smaller_than_what_is_reported_fails(name: str) -> None:
    condition = DEFECTS[name]
    search = campaign({"MY001": condition}, examples=500, seed=3)
    search.on_find = enough
    (found,) = search.run().finds
    assert found.shrunk
    assert len(found.scenario.calls) == 1
    least = axes(found.scenario.last)
    failing = [axes(other.last) for other in smaller(least) if condition(other)]
    assert failing == [least]
    assert found.scenario.last.case.prompts == ("",) * least.B
