"""Campaigns over real runs: the clean toy is clean, each faulty one is found in the smallest case that shows it."""

from hypothesis.strategies import sampled_from

from fmcheck.fuzz import Limits, Local, campaign_of
from fmcheck.scenario import Scenario
from fmcheck.strategies import scenarios
from fmcheck.subject import Subject
from fmcheck.trial import Bench
from tests.cli import toy_subject
from tests.fuzz import toy_fuzz_subject as toys
from tests.fuzz.fuzz_fakes import axes

# Judged in every plain run; none of them makes runs of its own.
PLAIN = ("FM101", "FM102", "FM203", "FM304", "FM707", "FM716", "FM717")


def hunted(of: Subject, examples: int, select: tuple[str, ...] = PLAIN):
    return campaign_of(Bench(of, select), limits=Limits(examples=examples, seed=1, shrink_seconds=600)).run()


def test_the_clean_toy_is_clean_in_this_process() -> None:
    """Drawing ahead seeds the global generators, which must not show in a run of the model (FM707, FM716)."""
    report = hunted(toy_subject.subject, 40)
    assert report.finds == ()
    assert report.unsteady == ()
    assert report.coverage.judged["FM707"] == 40
    assert report.coverage.judged["FM203"] > 10


def test_a_fault_of_square_latents_is_found_in_the_smallest() -> None:
    report = hunted(toys.squares, 60, ("FM203",))
    (found,) = report.finds
    least = axes(found.scenario.last, toys.squares)
    assert (least.h, least.w, least.B) == (2, 2, 1)
    assert found.shrunk
    assert "the loop behaves as" in found.findings[0].message


def test_a_fault_of_the_second_call_is_found_with_the_first() -> None:
    report = hunted(toys.remembering, 40, ("FM7", "FM1"))
    histories = [found.scenario for found in report.finds if len(found.scenario.calls) == 2]
    assert histories
    for scenario in histories:
        first, second = (axes(call, toys.remembering) for call in scenario.calls)
        assert first.h != second.h
        assert first.B == second.B == first.w == second.w == 1


def test_what_the_tokenizer_refuses_is_counted_and_no_find() -> None:
    of = toys.refusing()
    search = campaign_of(Bench(of, ("FM203", "FM304")), limits=Limits(examples=30, seed=1))
    report = search.run()
    assert report.finds == ()
    assert report.refused.keys() == {"tokenize refused the prompts"}
    assert report.coverage.axes["prompts"]["some empty"] + report.coverage.axes["prompts"]["one, empty"] >= 1


def test_out_of_memory_is_a_find_of_its_own_and_no_rule_is_blamed() -> None:
    case = toys.ending.case.but(seed=toys.MEMORY)
    only = [Scenario((call,)) for call in map(_call, [case, case.but(seed=1)])]
    search = campaign_of(Bench(toys.ending, PLAIN), limits=Limits(examples=2))
    search.strategy = sampled_from(only)
    (found,) = search.run().finds
    assert found.code == "MEMORY"
    assert {finding.severity for finding in found.findings} == {"warning"}


def _call(case):
    from fmcheck.scenario import Call

    return Call(case=case)


def test_a_bench_runs_in_this_process_by_default_and_is_asked_for_its_rules() -> None:
    bench = Bench(toy_subject.subject, ("FM2",))
    search = campaign_of(bench)
    assert isinstance(search.executor, Local)
    assert set(search.codes) >= {"FM203", "CRASH", "HANG", "MEMORY"}
    assert "FM801" not in search.codes
    assert isinstance(search.strategy, type(scenarios(toy_subject.subject)))
