"""The order of the looks: first what the runs that are there can show."""

from collections.abc import Iterator
from dataclasses import replace

from fmcheck.power.looks import Look, looks_of, next_looks
from fmcheck.rules import Check, get_rule
from fmcheck.session import Session
from fmcheck.wish import Run
from tests.rules.toy import toy_subject


def codes(looks: list) -> list[str]:
    return [rule.code for look in looks for rule in look.rules]


def test_trace_rules_look_at_the_native_run_first() -> None:
    session = Session(toy_subject())
    looks = looks_of(session, [get_rule("FM503"), get_rule("FM501"), get_rule("FM203")], "generate")
    first = next_looks(session, looks)
    assert codes(first) == ["FM501", "FM203"]
    assert first[0].over == session.plan.base


def test_a_relation_is_judged_when_its_runs_are_there() -> None:
    session = Session(toy_subject())
    looks = looks_of(session, [get_rule("FM503")], "generate")
    for wish in looks[0].wishes:
        session.run(wish)
    assert looks[0].missing(session) == frozenset()


def test_a_rule_that_names_further_runs_later_waits() -> None:
    session = Session(toy_subject())
    looks = looks_of(session, [get_rule("FM708"), get_rule("FM501")], "generate")
    assert codes(next_looks(session, looks)) == ["FM501"]


def test_training_is_looked_at_for_faults_of_training_only() -> None:
    session = Session(toy_subject())
    rules = [get_rule("FM903"), get_rule("FM905"), get_rule("FM501")]
    assert codes(looks_of(session, rules, "loss")) == ["FM903", "FM905"]
    assert "FM903" not in codes(looks_of(session, rules, "generate"))


def test_a_rule_that_breaks_hides_no_other() -> None:
    def breaks(run: Run) -> Iterator[Check]:
        yield Check(holds=True)
        raise KeyError(run.name)

    session, update = Session(toy_subject()), get_rule("FM501")
    base = session.plan.base
    outcomes = Look((replace(update, function=breaks), update), (base,), base).judge(session)
    assert [outcome.status for outcome in outcomes] == ["passed"]
