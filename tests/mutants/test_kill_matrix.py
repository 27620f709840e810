"""The kill matrix: every mutant is caught by the rule it names, and no rule says a word about a correct variation."""

from functools import partial

import pytest
import torch

from fmcheck.errors import DeclarationError
from fmcheck.mutants import all_mutants, all_variations, get_mutant, get_variation, kill_table
from fmcheck.outcome import Outcome
from fmcheck.ranks.pool import Ranks
from fmcheck.rules import get_rule
from fmcheck.run import Session, check
from fmcheck.subject import Subject
from fmcheck.subjects import load_subject


def _judged(entry, tiny: Subject) -> Outcome:
    try:
        rule = get_rule(entry.caught_by)
    except DeclarationError as error:
        pytest.fail(f"{entry.name}: {error}")
    with Ranks(partial(load_subject, f"mutant:{entry.name}"), entry.nproc) as ranks:
        return Session(entry.change(tiny), ranks=ranks).judge(rule)


def _chosen():
    """The development log's defects, and one mutant a rule; `fmcheck mutants`, which CI runs, goes through all."""
    rest = {}
    for entry in all_mutants():
        key = entry.name if entry.name.startswith("log") else entry.caught_by
        rest.setdefault(key, entry)
    # Starting processes takes seconds, as compiling does; what goes wrong there is shown by the tests of those rules.
    slow = {m.name: m.nproc > 1 or bool(get_rule(m.caught_by).costly) for m in rest.values()}
    marks = {name: pytest.mark.slow if is_slow else [] for name, is_slow in slow.items()}
    return [pytest.param(m, id=f"{m.caught_by}-{m.name}", marks=marks[m.name]) for m in rest.values()]


@pytest.mark.parametrize("entry", _chosen())
def test_the_named_rule_catches_the_mutant(entry, tiny: Subject):
    outcome = _judged(entry, tiny)
    if outcome.status == "skipped" and "other_device" in outcome.rule.needs:
        pytest.skip(outcome.reason)
    findings = [f for f in outcome.findings if f.severity != "note"]
    assert findings, f"{entry.caught_by} {outcome.status} after {outcome.checks} checks: {outcome.reason}"


# A few; `fmcheck mutants`, which CI runs, goes through all.
_TELLING = (
    "heun_declared",
    "noise_on_the_callers_terms",
    "two_guidance_calls_uncond_first",
)


def _variations():
    yield from (pytest.param(get_variation(name), id=name) for name in _TELLING)
    # Only here it is seen whether rules about ranks judged them.
    yield from (pytest.param(v, id=v.name, marks=pytest.mark.slow) for v in all_variations() if v.nproc > 1)


@pytest.mark.parametrize("entry", list(_variations()))
def test_no_rule_objects_to_a_correct_variation(entry, tiny: Subject):
    load = partial(load_subject, f"variation:{entry.name}")
    report = check(entry.change(tiny), nproc=entry.nproc, load=load)
    objections = [str(f) for f in report.findings if not (f.severity == "warning" and f.code in entry.warns)]
    assert not objections
    assert not report.problems
    judged = {o.rule.code for o in report.outcomes if o.rule.on_ranks and o.status == "passed"}
    assert len(judged) >= 4 or entry.nproc == 1


@pytest.mark.parametrize("entry", [v for v in all_variations() if v.warns], ids=lambda v: v.name)
def test_a_declared_cost_is_a_warning(entry, tiny: Subject):
    report = check(entry.change(tiny), select=entry.warns)
    assert {f.code for f in report.findings} == set(entry.warns)
    assert not report.failed()
    assert report.failed(strict=True)


# What the tiny model cannot show: it starts at text, and runs in no float16.
# And what is up to the machine: a second kernel for attention, and products that can be reduced.
_UNTOLD = {"FM209", "FM407", "FM508", "FM819", "FM820"}


def test_no_rule_objects_to_the_clean_model(tiny: Subject):
    report = check(tiny)
    assert not [str(finding) for finding in report.findings]
    here = [outcome for outcome in report.outcomes if not (outcome.rule.on_ranks or outcome.rule.costly)]
    assert {outcome.rule.code for outcome in here if outcome.status != "passed"} <= _UNTOLD


def test_the_kill_table_says_who_caught_what():
    seen = []
    kills = kill_table([get_mutant("clamped_at_a_thousandth")], on_mutant=seen.append, full=True)
    assert seen == kills
    assert kills[0].verdict == "caught by FM305"
    assert "FM303" in kills[0].also
    assert kills[0].calls > 0
    assert kills[0].seconds > 0


def test_a_mutant_that_this_machine_cannot_show_is_not_missed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    (kill,) = kill_table([get_mutant("accelerators_kernel_transposes")])
    assert not kill.missed
    assert not kill.by_named
    assert kill.verdict == "not judged: this machine has no CUDA or MPS device"
