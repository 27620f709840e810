"""FM9 on randomness: where a training loss draws from."""

from collections.abc import Iterator, Mapping

import torch

from fmcheck.plan import Run
from fmcheck.record.trace import Draw
from fmcheck.record.training import TrainingReading
from fmcheck.rules.evidence import exact
from fmcheck.rules.registry import Check, rule


@rule(
    "FM907",
    "train-randomness",
    needs=("velocity", "loss"),
    wishes=lambda plan: {"loss": plan.loss, "large": plan.large_loss},
)
def train_randomness(runs: Mapping[str, Run]) -> Iterator[Check]:
    """A loss draws from the generator that it is handed and from no other, so that a seed repeats a training step.

    How it goes wrong: `torch.rand(batch)` without the generator beside draws with it, NumPy for the null rows, a
    generator seeded anew in every step, which trains the same few times for ever.

    Checked: the states of the caller's and of all global generators around two losses, and that two seeds give two
    sets of times. Where the loss neither takes nor uses a generator, foreign draws are a warning. Draws inside of a
    component with active dropout do not count. It cannot see a generator object of the code's own, only that its times
    repeat.

    Fix: pass the generator to every draw. Source: property E of the collected defects.
    """
    for run in runs.values():
        foreign = _foreign_draws(run)
        handed = [call for call in run.trace.of("loss") if any(map(_is_generator, call.inputs.values()))]
        own = any(draw.source == "caller" for draw in run.trace.draws)
        moved = _foreign(run)
        yield exact(
            not moved,
            f"the loss draws from {', '.join(moved)} instead of the generator that it was handed",
            where=f"run {run.name}" + (f", {foreign[0].where}" if foreign else ""),
            severity="error" if own or handed else "warning",
        )
    # Every run finds the global generators in the same state, so only times from the caller's can tell seeds apart.
    if not any(map(_foreign, runs.values())):
        yield _times_follow_the_seed(runs["loss"], runs["large"])


def _foreign(run: Run) -> list[str]:
    """Names of the generators other than the caller's that a run drew from."""
    explained = {draw.source for draw in run.trace.draws}
    return sorted({draw.source for draw in _foreign_draws(run)} | (set(run.trace.rng_changes) - explained))


def _foreign_draws(run: Run) -> list[Draw]:
    """Draws from other generators than the caller's, but for those of dropout, which can be handed none."""
    dropping = {call.role for call in run.trace.calls if call.dropout}
    return [draw for draw in run.trace.draws if draw.source != "caller" and draw.role not in dropping]


def _times_follow_the_seed(run: Run, other: Run) -> Check:
    told, others = (TrainingReading(of.trace, of.subject.spec).told for of in (run, other))
    rows = min(len(told), len(others))
    return exact(
        not torch.equal(told[:rows], others[:rows]),
        f"seeds {run.case.seed} and {other.case.seed} give the same training times in the first {rows} rows",
        where=f"runs {run.name} and {other.name}",
        diagnosis="a generator is seeded inside of the loss, or the times are fixed",
    )


def _is_generator(value: object) -> bool:
    return isinstance(value, torch.Generator)
