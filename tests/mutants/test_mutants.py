"""Registry facts, and that every mutant is what it says: it can be built, and something observable differs."""

import itertools
import pickle
import re
from collections import Counter
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from fmcheck.errors import DeclarationError, InternalError
from fmcheck.mutants import all_mutants, all_variations, get_mutant, mutant
from fmcheck.plan import Plan, Wish
from fmcheck.record.points import find_output
from fmcheck.record.trace import Trace
from fmcheck.record.training import TrainingReading
from fmcheck.rules import all_rules, get_rule
from fmcheck.run import Session
from fmcheck.spec import FlowSpec
from fmcheck.subject import Subject

MUTANTS = all_mutants()

# The nine lines of the development log, by the rules that catch them.
DEVELOPMENT_LOG = ["log1", "log2", "log3", "log4", "log5", "log6", "log7", "log8", "log9"]


def test_there_are_many_mutants_and_variations():
    assert len(MUTANTS) >= 60
    assert len(all_variations()) >= 14


def test_the_development_log_comes_first_and_in_its_order():
    entries = [re.match(r"(log\d)_", m.name) for m in MUTANTS]
    first = [entry[1] for entry in itertools.takewhile(bool, entries)]
    assert list(dict.fromkeys(first)) == DEVELOPMENT_LOG
    assert len(first) == sum(map(bool, entries))


def test_every_rule_is_named_by_a_mutant():
    named = {m.caught_by for m in MUTANTS}
    assert not [str(rule) for rule in all_rules() if rule.code not in named]


def test_every_named_rule_exists():
    known = {rule.code for rule in all_rules()}
    assert not sorted({m.caught_by for m in MUTANTS} - known)


def test_names_are_unique_and_summaries_are_sentences():
    names = [entry.name for entry in (*MUTANTS, *all_variations())]
    assert len(set(names)) == len(names)
    assert not [entry.name for entry in (*MUTANTS, *all_variations()) if not entry.summary.endswith(".")]


def test_an_unknown_mutant_names_the_nearest():
    with pytest.raises(DeclarationError, match="did you mean 'uniform_grid'"):
        get_mutant("uniform_gird")


def test_a_name_is_not_taken_twice():
    def uniform_grid(model: object) -> None:
        """Taken."""

    with pytest.raises(InternalError, match="uniform_grid is registered twice"):
        mutant("FM303")(uniform_grid)


def test_a_mutant_needs_a_docstring():
    with pytest.raises(InternalError, match="no docstring"):
        mutant("FM303")(lambda model: None)


def test_a_mutant_leaves_the_clean_subject_alone(tiny: Subject):
    broken = get_mutant("uniform_grid").change(tiny)
    assert broken.name == "tiny with uniform_grid"
    assert not torch.equal(broken.build(tiny.case).time_grid(4).dt, tiny.build(tiny.case).time_grid(4).dt)


def _telling():
    """Two mutants a family of rules; the slow tests, which CI runs, go through all."""
    shown = Counter()
    for entry in (m for m in MUTANTS if m.nproc == 1 and not get_rule(m.caught_by).costly):
        family = get_rule(entry.caught_by).family
        shown[family] += 1
        yield pytest.param(entry, id=entry.name, marks=pytest.mark.slow if shown[family] > 2 else [])


@pytest.mark.parametrize("entry", list(_telling()))
def test_a_mutant_can_be_built_and_shows(entry, tiny: Subject, clean_session: Session):
    broken = Session(entry.change(tiny))
    pairs = list(zip(_wishes(broken.plan), _wishes(clean_session.plan), strict=True))
    # Twice, since what a later call does to the pictures of an earlier one shows only afterwards.
    shows = any(_differ(broken.run(wish).trace, clean_session.run(clean).trace) for wish, clean in pairs * 2)
    # A posterior that is declared and not drawn from shows in the declaration alone.
    shows = shows or broken.subject.spec.posterior != tiny.spec.posterior
    assert shows, f"{entry.name} behaves like the clean model in every run"


# Rules that run the native case in another way, in which alone their mutants show.
_PARITY = ("FM813", "FM816", "FM817", "FM818", "FM819", "FM820")


def _wishes(plan: Plan) -> Iterator[Wish]:
    """Runs in which a defect may show, the telling and cheap ones first."""
    yield from (plan.base, plan.wide, plan.unguided, plan.other_size, *plan.plain)
    yield from (plan.shifted_time, plan.nan_velocity, plan.other_rng, plan.again, plan.padded, plan.masked)
    yield from (plan.poisoned(0), plan.fault("text"), plan.fault("velocity"), plan.fault("decode"))
    yield from plan.impossible_sizes.values()
    yield from (plan.loss, plan.large_loss)
    yield from get_rule("FM207").wishes(plan).values()
    for code in _PARITY:
        yield from get_rule(code).wishes(plan).values()
    yield from (plan.neighbours(0, plan.other_size.case), plan.fresh_wide, plan.fresh_base)


def _differ(found: Trace, clean: Trace) -> bool:
    """Whether two traces differ in anything that a rule can read."""
    facts = (_facts(found), _facts(clean))
    return facts[0] != facts[1] or any(
        _tensors_differ(a, b) for a, b in zip(_tensors(found), _tensors(clean), strict=True)
    )


def _facts(trace: Trace) -> list[object]:
    calls = [(c.name, c.training, c.dropout, c.grad, c.mutated, c.devices, len(c.mismatches)) for c in trace.calls]
    returned = find_output(trace.returned, None)
    kept = returned is None or trace.result is None or torch.equal(returned.nan_to_num(), trace.result.nan_to_num())
    reading = TrainingReading(trace, FlowSpec()) if trace.kind == "loss" and trace.error is None else None
    rows = reading.gradient.any(dim=1).tolist() if reading and reading.unknown_gradient is None else None
    left = [kept, rows, trace.born, trace.model_changes, trace.input_changes, trace.process_changes, trace.rng_changes]
    shapes = [(t.shape, t.dtype) if t is not None else None for t in _tensors(trace)]
    return [type(trace.error), calls, trace.draws, len(trace.warnings), *left, shapes]


def _tensors(trace: Trace) -> list[Tensor | None]:
    of_calls = [value for c in trace.calls for value in (*c.inputs.values(), c.output)]
    return [v if isinstance(v, Tensor) else None for v in (*of_calls, trace.result)]


def _tensors_differ(a: Tensor | None, b: Tensor | None) -> bool:
    if a is None or b is None:
        return a is not b
    return not torch.equal(a.float().nan_to_num(7e7), b.float().nan_to_num(7e7))


def test_every_entry_crosses_to_another_process():
    for entry in (*MUTANTS, *all_mutants(odd=True), *all_variations()):
        assert pickle.loads(pickle.dumps(entry)) == entry
