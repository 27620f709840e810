"""FM5 on constant velocities: how much of the path a loop covers, and whether more steps would mend it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial

import torch

from fmcheck.flow import evaluation_times, time_edges, to_argument
from fmcheck.oracles import constant_runs
from fmcheck.plan import Plan, Run
from fmcheck.rules.effective import Effective
from fmcheck.rules.evidence import measured, require, within
from fmcheck.rules.registry import Check, rule
from fmcheck.spec import FlowSpec
from fmcheck.tolerance import EXPLAINED
from fmcheck.wish import Wish


def _refined(plan: Plan) -> dict[str, Wish]:
    scale = plan.native.guidance_scale
    return {name: wish for name, wish in constant_runs(plan).items() if wish.case.guidance_scale == scale}


@rule("FM505", "never-arrives", conventions=("grid", "grid_clamp"), wishes=_refined)
def never_arrives(runs: Mapping[str, Run]) -> Iterator[Check]:
    """The loop covers the declared path at every number of steps, so that its error can vanish.

    How it goes wrong: quantiles clamped to [1e-6, 1 - 1e-6] leave out 1.7% of the path for every number of steps, to
    [1e-3, 1 - 1e-3] 8.7%; a step that is dropped or made twice, steps that are scaled, a grid that ends before 1. The
    picture keeps a haze of the initial state, and raising the number of steps is no cure.

    Checked: the recorder answers with constant velocities, whose flow every method solves exactly, at the native number
    of steps and 2, 4 and 8 times as many: the sum of the coefficients that carry the initial to the final state is the
    covered part of the path. Unlike FM305 this reads no single step, and it says whether the loss stays. A declared
    clamp is expected here (FM305 warns of it).

    Fix: `q = linspace(0, 1, K + 1)`; `icdf(0) = -inf` and `sigmoid(-inf) = 0` are exact. For lost steps see FM301.
    Source: telescoping sum of the edges; the flow of a constant field.
    """
    ordered = sorted(runs.values(), key=lambda run: run.case.num_steps)
    bent = ordered[0].subject.spec.rescales and ordered[0].reading.guided
    require(not bent, "the combined prediction is rescaled, by a factor that bends a constant field")
    covered = {run.case.num_steps: Effective(run).coefficients.dt for run in ordered}
    shown = _listed(covered)
    yield measured(f"covered path {shown}")
    if ordered:
        yield measured(_grid_text(ordered[0]))
    for run in ordered:
        effective, edges = Effective(run), run.reading.edges
        found, declared = effective.coefficients.dt, float(edges[-1] - edges[0])
        yield within(
            abs(found - declared),
            effective.path_error,
            f"{run.case.num_steps} steps cover {found:.6g} of the path, expected {declared:.6g}; {shown}",
            where=f"run {run.name}",
            diagnosis=partial(_explain, covered, run.subject.spec, run),
        )


def _listed(covered: Mapping[int, float]) -> str:
    if max(covered.values()) - min(covered.values()) <= EXPLAINED * abs(max(covered.values())):
        counts = ", ".join(map(str, covered))
        return f"{min(covered.values()):.5f} at {counts} steps"
    return ", ".join(f"{part:.5f} at {steps} steps" for steps, part in covered.items())


def _grid_text(run: Run) -> str:
    """The steps and times that the loop really used, as far as they can be read."""
    lengths = ", ".join(f"{dt:.5f}" for dt in run.reading.effective_dt) if run.subject.spec.has_formula else "not read"
    times = ", ".join(f"{evaluation.time:.5f}" for evaluation in run.reading.evaluations)
    return f"grid of {run.case.num_steps} steps: lengths {lengths}; network asked at t = {times}{_time_map(run)}"


def _time_map(run: Run) -> str:
    """The affine map from the place of an evaluation among the steps as made to what the network was told."""
    reading, spec = run.reading, run.subject.spec
    edges = torch.tensor([0.0, *reading.effective_dt], dtype=torch.float64).cumsum(0)
    told = torch.tensor([evaluation.time for evaluation in reading.evaluations], dtype=torch.float64)
    places = evaluation_times(edges, spec).reshape(-1)
    if len(places) != len(told) or len(told) < 2 or not bool(edges.isfinite().all()):
        return ""
    columns = torch.stack([torch.ones_like(places), places], 1)
    offset, slope = (
        torch.linalg.lstsq(columns, to_argument(told, spec)[:, None], driver="gelsd").solution.flatten().tolist()
    )
    return f", told {offset:.4g} {slope:+.4g} t"


def _explain(covered: Mapping[int, float], spec: FlowSpec, run: Run) -> str:
    steps = list(covered)
    missing = {count: _declared(count, spec) - part for count, part in covered.items()}
    first, last = missing[steps[0]], missing[steps[-1]]
    lost = "never integrated" if last > 0 else "integrated beyond its end"
    if abs(last - first) <= EXPLAINED * abs(first):
        return f"{abs(last):.2%} of the path is {lost}, and no number of steps repairs it{_clamp(last, spec)}"
    for size, text in _shrinking(spec):
        if all(abs(missing[count] - size(count)) <= EXPLAINED * abs(size(count)) for count in steps):
            return f"{text}{_which(run)}: the loss shrinks with the step"
    return f"from {steps[0]} to {steps[-1]} steps the part that is {lost} goes from {abs(first):.2%} to {abs(last):.2%}"


def _shrinking(spec: FlowSpec) -> Iterator[tuple[Callable[[int], float], str]]:
    """What is missing for a number of steps under known mistakes that more steps do mend, slowly."""
    yield (lambda count: float(time_edges(count, spec).diff()[-1])), "a step as long as the last one is left out"
    yield (lambda count: float(time_edges(count, spec).diff()[0])), "a step as long as the first one is left out"
    yield (lambda count: -float(time_edges(count, spec).diff()[-1])), "a step as long as the last one is made twice"
    yield (lambda count: -float(time_edges(count, spec).diff()[0])), "a step as long as the first one is made twice"
    more = "the grid is that of one step more, and its last step is left out"
    yield (lambda count: float(time_edges(count + 1, spec).diff()[-1])), more
    yield (lambda count: _declared(count, spec) / (count + 1)), "every step is divided by K + 1 in place of K"


def _which(run: Run) -> str:
    """Which step it is, where a single one is not as long as declared."""
    pairs = zip(run.reading.effective_dt, run.reading.steps_dt.tolist(), strict=False)
    wrong = [k for k, (found, declared) in enumerate(pairs) if not abs(found - declared) <= EXPLAINED * declared]
    return f" (step {wrong[0]} of {run.case.num_steps})" if len(wrong) == 1 else ""


def _declared(steps: int, spec: FlowSpec) -> float:
    edges = time_edges(steps, spec)
    return float(edges[-1] - edges[0])


def _clamp(lost: float, spec: FlowSpec) -> str:
    """The clamp of the quantiles that loses as much, where one does."""
    if spec.grid != "logit_normal" or not 0 < lost < 1:
        return ""
    for exponent in range(2, 9):
        eps = 10.0**-exponent
        if abs(1 - _declared(1, replace(spec, grid_clamp=eps)) - lost) <= 10 * EXPLAINED * lost:
            return f" (quantiles clamped to [{eps:g}, 1 - {eps:g}] lose as much)"
    return ""
