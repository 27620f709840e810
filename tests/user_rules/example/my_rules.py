"""House rules: what this team demands of its samplers beyond what fmcheck does."""

from collections.abc import Iterator, Mapping

import fmcheck
from fmcheck.rules import Run, apart, bitwise, exact, require, within


@fmcheck.rule(code="MY001", name="over-budget", needs=("velocity",))
def over_budget(run: Run) -> Iterator[fmcheck.Check]:
    """A run calls the network at most twice a step.

    How it goes wrong: a corrector step that was meant for one experiment stays switched on.

    Checked: the recorded calls of the velocity point against twice the steps of the case.

    Fix: evaluate both guidance branches in one call.
    """
    calls, budget = len(run.trace.of("velocity")), 2 * run.case.num_steps
    yield within(calls, budget, f"{calls} calls of the network in {run.case.num_steps} steps, at most {budget} allowed")


@fmcheck.rule(
    code="MY002",
    name="seed-without-effect",
    wishes=lambda plan: {"base": plan.base, "again": plan.other_seed},
)
def seed_without_effect(runs: Mapping[str, Run]) -> Iterator[fmcheck.Check]:
    """Another seed gives another picture, as our gallery promises.

    Checked: the pictures of two runs that differ in nothing but the seed.

    Fix: hand the caller's generator to the sampler.
    """
    base, again = runs["base"].result, runs["again"].result
    require(base.shape == again.shape, f"the pictures cannot be compared: {apart(base, again)}")
    yield exact(not bitwise(base, again), "two seeds gave the same picture, bit for bit", where="base and other-seed")
