"""FM9: closure: what training asks of the network carries the sampler to the data."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from fmcheck.errors import NotInformative
from fmcheck.flow import (
    as_prediction,
    as_velocity,
    effective_coefficients,
    integrate,
    interpolate,
    velocity_target,
)
from fmcheck.plan import Plan, Run
from fmcheck.record.disturb import Disturbance, answer_instead
from fmcheck.record.grouping import flow_times
from fmcheck.record.training import TrainingReading
from fmcheck.record.training_law import TrainingLaw, levels_and_ends, training_law
from fmcheck.rules.effective import end_of
from fmcheck.rules.evidence import exact, measured, require, within
from fmcheck.rules.fm5_integration import worst
from fmcheck.rules.registry import Check, rule
from fmcheck.spec import FlowSpec
from fmcheck.tolerance import EXPLAINED, closure_bound
from fmcheck.wish import Wish

# Pairs in a loss: enough for three coefficients of a polynomial in time, with many rows to spare.
_PAIRS = 32


def _losses(plan: Plan) -> dict[str, Wish]:
    case = plan.small.with_batch(_PAIRS)
    runs = levels_and_ends().items()
    return {name: replace(plan.loss, name=f"loss-{name}", case=case, disturbances=changes) for name, changes in runs}


def _law(runs: Mapping[str, Run]) -> TrainingLaw:
    return training_law(
        {name: TrainingReading(run.trace, run.subject.spec) for name, run in runs.items() if run.wish.kind == "loss"}
    )


def _sampler(plan: Plan, runs: Mapping[str, Run]) -> dict[str, Wish]:
    try:
        law = _law(runs)
    except NotInformative:
        return {}
    if not law.leads_to_data:
        return {}
    return {"closure": Wish("closure", plan.small.with_batch(1), disturbances=(_asked(law, plan.subject.spec),))}


def _asked(law: TrainingLaw, spec: FlowSpec) -> Disturbance:
    """The network answers what training asks for on the way to the first data end, the same for both branches.

    A straight path has one velocity, whatever the state between its ends: a loop may evaluate the state of an edge at
    the time of a midpoint. So the source end is the state of the first call, of which there is one row only.
    """
    start: list[Tensor] = []

    def answer(inputs: dict[str, Any], like: Tensor) -> Tensor:
        x = inputs.get("x")
        if not isinstance(x, Tensor) or x.dim() < 2 or x[0].numel() != law.ends.shape[1]:
            raise NotInformative("the sampler's state has not the size of the training state")
        start.append(x[0].detach().cpu().double().flatten())
        t = flow_times(inputs.get("time"), len(x), spec, "the network")
        return law.target(t, start[0], law.ends[0]).reshape(x.shape).to(like.device, like.dtype)

    return answer_instead("what training asks for", "velocity", answer)


@rule(
    "FM909",
    "no-closure",
    needs=("velocity", "velocity.time", "loss", "encode"),
    wishes=_losses,
    follow_up=_sampler,
)
def no_closure(runs: Mapping[str, Run]) -> Iterator[Check]:
    """A network that answers what training asks for carries the sampler to the data: `end = x1 + sigma_min x0`.

    How it goes wrong: the target's sign or ends are those of another convention than the sampler's, the target is the
    data or the noise although a velocity is integrated, the path starts at the data, the steps do not add up to the
    path, the end is another one than the encoder makes. Both halves of the code look right on their own.

    Checked: five losses with constant network outputs show what the user's own training code asks for (from the
    gradient of a squared error), as a function of time and of both ends; no declaration is read for it. That function
    takes the network's place in the user's own `generate`, whose final state must be the data end, to rounding, for
    every method, grid and scale. (Less what a declared clamp leaves out; and where a prediction of an end makes the
    declared method itself inexact, the end that it has on the declared target.) It is blind to the choice of the grid
    and of the evaluation times, since the path is straight; FM504 is not. Not informative for losses that are no
    squared error.

    Fix: one convention for path, target and sampler; the diagnosis says where the loop ended. Source: closure of
    training and sampling; conditional velocity, arXiv 2210.02747, eq. 14 and 23.
    """
    law = _law(runs)
    yield exact(
        law.leads_to_data,
        "the training state holds the data end at t = 0 and the source at t = 1, as the network is told",
        diagnosis="training runs from data to source, the sampler from source to data",
    )
    if law.leads_to_data:
        yield measured(
            f"training asks for {law.alpha:+.5f} x0 {float(law.beta.sum()):+.5f} x1 at t = 1"
            + ("" if law.remains is None else f", where the state holds {law.remains:.2g} x0")
        )
        yield _arrival(law, runs["closure"])


def _arrival(law: TrainingLaw, run: Run) -> Check:
    require(run.failure is None, str(run.failure))
    end, x0 = end_of(run), run.reading.start
    require(end.shape == x0.shape, "the final state has another shape than the initial one (see FM601)")
    x1 = law.ends[0].reshape(x0.shape)
    expected = _declared_end(run, x0, x1)
    require(bool(expected.isfinite().all()), "the declared prediction says nothing about the velocity at an end")
    used, allowed = worst((end - expected).abs(), closure_bound(run.reading, x0, x1, law.error))
    return within(
        used,
        allowed,
        f"on what training asks for, the sampler ends {used:.3g} away from the data end, allowed {allowed:.3g}",
        where=f"run {run.name}",
        diagnosis=lambda: _explain(end, x0, x1, run.subject.spec.sigma_min),
    )


def _declared_end(run: Run, x0: Tensor, x1: Tensor) -> Tensor:
    """Where the declared method ends on the target that the spec declares; `x1 + sigma_min x0` for a velocity."""
    spec = run.subject.spec

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        on_path = interpolate(x0, x1, t, spec.sigma_min)
        asked = as_prediction(velocity_target(x0, x1, spec.sigma_min), on_path, t, spec)
        return as_velocity(asked, x, t, spec)

    edges = run.reading.edges
    if not run.reading.saves_last_corrector:
        return integrate(velocity, x0, edges, spec)
    # A corrector would be asked for at t = 1, where the prediction of an end says nothing about the velocity.
    x = integrate(velocity, x0, edges[:-1], spec) if len(edges) > 2 else x0
    return x + (edges[-1] - edges[-2]) * velocity(x, edges[-2])


def _explain(end: Tensor, x0: Tensor, x1: Tensor, sigma_min: float) -> str:
    found = effective_coefficients(end, x0, x1)
    rest = end - found.cond * x0 - found.uncond * x1
    if not found.determined or float(rest.norm()) > EXPLAINED * float(end.norm()):
        return "the end is no combination of source and data end: what the network is told changes on the way"
    p, q = found.cond, found.uncond
    text = f"the sampler ends at {p:+.4g} x0 {q:+.4g} x1"
    known = (
        (2.0, -1.0, "the sign of the target is that of the other convention"),
        (1.0, 1.0, "the target is the data end, and the sampler integrates it as a velocity"),
        (2.0, 0.0, "the target is the source end, and the sampler integrates it as a velocity"),
        (0.0, -1.0, "the target is that of a data end with the other sign"),
    )
    for a, b, cause in known:
        if abs(p - a) + abs(q - b) < 0.05:
            return f"{text}: {cause}"
    if abs(q - 1) < EXPLAINED and p > sigma_min:
        return (
            f"{text}: training leaves {p:.4g} of the source at the data end, the spec declares sigma_min {sigma_min:g}"
        )
    if abs(p + q - 1) < EXPLAINED:
        return f"{text}: {q:.4g} of the way from source to data (steps that do not add up)"
    return text
