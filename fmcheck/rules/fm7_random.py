"""FM7, continued: randomness: the seed acts, only the caller's generator is used, nothing is drawn in the loop."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from fmcheck.plan import Plan, Run, Wish
from fmcheck.record.trace import Draw
from fmcheck.rules.evidence import bitwise, ends_alike, exact, require, require_finite
from fmcheck.rules.registry import Check, rule


def _two_seeds(plan: Plan) -> Mapping[str, Wish]:
    return {"base": plan.base, "other": plan.other_seed}


@rule("FM705", "seed-ignored", wishes=_two_seeds)
def seed_ignored(runs: Mapping[str, Run]) -> Iterator[Check]:
    """Another seed gives other pictures: the caller's generator is honoured.

    How it goes wrong: the generator is accepted and never used, `generate()` seeds its own, the text latent is its
    mean without noise, a text or latent cache ignores the seed.

    Checked: the native case with two seeds; the results must not be equal bit for bit, and where the public entry is
    handed a generator, its state must have moved: one that is only asked for its seed repeats the same noise in the
    next call (a warning). Draws and initial states of both runs name the likely cause.

    Fix: hand the generator to every `randn`. A pipeline that is deterministic by design expects this failure.
    Source: `z = mu + sigma * eps` with `eps` from the caller's generator, arXiv 1312.6114, section 2.4.
    """
    base, other = runs["base"], runs["other"]
    require_finite(base.result, other.result)
    yield exact(
        not ends_alike(base, other),
        f"seeds {base.case.seed} and {other.case.seed} give the same pictures, bit for bit",
        where=f"runs {base.name} and {other.name}",
        diagnosis=lambda: _deaf(base, other),
    )
    if _handed_generator(base) and not ends_alike(base, other):
        yield exact(
            any(draw.source == "caller" for draw in base.trace.draws),
            "the pictures follow the seed of the generator, but nothing is drawn from it, so a second call with "
            "the same generator repeats the noise of the first",
            where=f"run {base.name}",
            severity="warning",
            diagnosis="another generator is seeded from generator.initial_seed(), or a copy of it is drawn from",
        )


def _handed_generator(run: Run) -> bool:
    return any(isinstance(v, torch.Generator) for call in run.trace.of("generate") for v in call.inputs.values())


def _deaf(base: Run, other: Run) -> str:
    sources = {draw.source for draw in base.trace.draws}
    if "caller" not in sources:
        elsewhere = ", ".join(sorted(sources))
        return (
            f"noise is drawn from the global generator ({elsewhere}) instead" if sources else "nothing is drawn at all"
        )
    starts = [call.inputs.get("x") for run in (base, other) for call in run.trace.of("velocity")[:1]]
    states = [x for x in starts if isinstance(x, Tensor)]
    if len(states) == 2 and not bitwise(states[0], states[1]):
        return "the initial states differ, and the loop does not use them"
    return "numbers are drawn from the caller's generator, and thrown away or scaled to nothing"


def _undisturbed_and_disturbed(plan: Plan) -> Mapping[str, Wish]:
    return {**{wish.name: wish for wish in plan.plain}, "base": plan.base, "disturbed": plan.other_rng}


@rule("FM706", "foreign-randomness", wishes=_undisturbed_and_disturbed, judges_crashes=True)
def foreign_randomness(runs: Mapping[str, Run]) -> Iterator[Check]:
    """All randomness comes from the caller's generator: other states of the global ones change nothing, bit for bit.

    How it goes wrong: one `randn` without `generator=`, dropout left on, a layer initialised during inference, noise
    from NumPy. The same seed then gives another picture in every process, and a bug report cannot be reproduced.

    Checked: in every plain run, that no global generator of torch, Python or NumPy moves at or between observed calls
    (a finding names the function that drew, such as `sample`); and that the native case gives the same pictures when
    all of them are seeded otherwise.

    Fix: `torch.randn(shape, generator=generator, device=generator.device)`. Source: PyTorch reproducibility notes;
    start latents drawn per rank, vllm-project/vllm-omni issue 2176.
    """
    for name, run in runs.items():
        foreign = _foreign(run)
        yield exact(
            not foreign,
            f"{len(foreign)} draws from global generators; the first from {_named(foreign)}",
            where=f"run {name}",
            diagnosis=_culprit(run, foreign),
        )
    base, disturbed = runs["base"], runs["disturbed"]
    yield exact(
        bitwise(base.result, disturbed.result),
        "the pictures change with the state of the global random generators, although the seed is the same",
        where=f"runs base and {disturbed.name}",
        diagnosis=f"drawn from {_named(_foreign(base))}"
        if _foreign(base)
        else "a generator that is seeded from the global ones",
    )


def _culprit(run: Run, foreign: list[Draw]) -> str:
    """The observed function that drew first, where it was one, and what draws like that."""
    point = run.subject.points.get(foreign[0].role or "") if foreign else None
    where = f"inside {point.path}: " if point else ""
    return where + "a random call without generator=, active dropout, or a layer initialised during inference"


def _foreign(run: Run) -> list[Draw]:
    return [draw for draw in run.trace.draws if draw.source != "caller"]


def _named(draws: list[Draw]) -> str:
    return f"{draws[0].source} {draws[0].where}" if draws else ""


@rule("FM707", "global-rng-touched")
def global_rng_touched(run: Run) -> Iterator[Check]:
    """`generate()` leaves the global random generators as it found them: torch, the device's, Python's, NumPy's.

    How it goes wrong: `torch.manual_seed(seed)` inside `generate()`. A preview in the middle of training then repeats
    the same noise after every preview, and the training run is no longer the one without previews.

    Checked: the states of the global generators before and after every plain run. Draws that are put back afterwards
    are FM706.

    Fix: a `torch.Generator` of its own, or `torch.random.fork_rng()` around code that cannot take one. Source: PyTorch
    reproducibility notes; previews during training, alvdansen/signet-trainer issue 34.
    """
    changed = run.trace.rng_changes
    yield exact(not changed, f"global random generators moved during the run: {', '.join(changed)}")


@rule("FM716", "loop-randomness", conventions=("solver",))
def loop_randomness(run: Run) -> Iterator[Check]:
    """A deterministic solver draws nothing between its first and its last evaluation, from any generator.

    How it goes wrong: a random time in every step instead of the quantile grid, noise added to the state as in an
    ancestral sampler, dropout inside the network.

    Checked: the caller's generator and the global ones, looked at whenever an observed call begins or ends. Noise of
    the initial state comes before, noise of a stochastic decoder after. Euler, midpoint and Heun are deterministic.

    Fix: take the times from the grid; switch the network to eval. Source: probability-flow sampling is an ordinary
    differential equation, arXiv 2011.13456, section 4.3.
    """
    require(run.subject.spec.solver != "stochastic", "the solver is declared to draw noise on the way")
    require(bool(run.trace.of("velocity")), "the velocity network was never called")
    drawn = _drawn_in_loop(run)
    yield exact(
        not drawn,
        f"{len(drawn)} draws during the loop; the first from {_named(drawn)}",
        diagnosis="the network draws: dropout, or noise of its own"
        if drawn and drawn[0].where.startswith("inside velocity")
        else "random times, or noise added to the state",
    )


def _drawn_in_loop(run: Run) -> list[Draw]:
    """Draws after the first evaluation began and before the last one ended."""
    names = [call.name for call in run.trace.calls]
    evaluations = [call.name for call in run.trace.of("velocity")]
    first, last = names.index(evaluations[0]), names.index(evaluations[-1])
    within = set(names[first:last])
    inside_last = f"inside {evaluations[-1]}"
    return [d for d in run.trace.draws if d.where == inside_last or d.last_call in within]
