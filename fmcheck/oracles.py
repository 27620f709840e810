"""Oracle runs: a field whose flow is known takes the network's place, and the user's own loop must find its solution.

The rest of the pipeline is the user's: text, initial state, grid, guidance, update, autoencoder.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fmcheck.case import Case
from fmcheck.errors import NotInformative
from fmcheck.flow import as_prediction
from fmcheck.flow.exact import (
    Constant,
    ExactField,
    Gaussian,
    Linear,
    Mixture,
    Polynomial,
    Rotation,
    Sine,
    Transport,
)
from fmcheck.plan import Plan
from fmcheck.record.disturb import Disturbance, answer_instead
from fmcheck.record.grouping import flow_times
from fmcheck.spec import FlowSpec
from fmcheck.wish import Wish

__all__ = [
    "CONSTANT",
    "FIELDS",
    "ORDER_FIELD",
    "REFINED",
    "constant_runs",
    "field_runs",
    "in_place_of_network",
    "order_runs",
    "overflow_runs",
]

# What each of them tells apart stands in its `separates`.
CONSTANT: ExactField = Constant()
# Less steep in time than the default, on which coarse grids are asymptotic sooner; unguided, so one branch says it.
ORDER_FIELD: ExactField = Sine(b=0.5)
FIELDS: Mapping[str, ExactField] = {
    field.name: field
    for field in (
        Sine(),
        Polynomial(),
        Linear(),
        Rotation(),
        Gaussian(mean1=0.5, std1=0.6),
        Transport(),
        Mixture(),
    )
}
# Numbers of steps for the order of convergence: asymptotic enough on `ORDER_FIELD` for orders within 0.08 of theory
# after one extrapolation, on all grids, and few enough that the worst rounding in float32 stays far below the errors.
REFINED = (4, 8, 16)


def field_runs(plan: Plan) -> dict[str, Wish]:
    """The native number of steps on every exact field, by its name."""
    return {name: _wish(plan, field, _case(plan)) for name, field in FIELDS.items()}


def order_runs(plan: Plan) -> dict[str, Wish]:
    """The nonlinear field at refined grids, by the number of steps; without guidance, which only adds rounding."""
    case = _case(plan).but(guidance_scale=plan.unguided.case.guidance_scale)
    return {str(steps): _wish(plan, ORDER_FIELD, case.but(num_steps=steps)) for steps in REFINED}


def constant_runs(plan: Plan) -> dict[str, Wish]:
    """Two constant velocities, one a branch: at the native steps, at 2, 4 and 8 times as many, at other scales."""
    case, field = _case(plan), CONSTANT
    counts = [case.num_steps * factor for factor in (1, 2, 4, 8)]
    runs = {f"{steps} steps": _wish(plan, field, case.but(num_steps=steps)) for steps in counts}
    for wish in (plan.other_scale, plan.unguided):
        runs[wish.name] = _wish(plan, field, case.but(guidance_scale=wish.case.guidance_scale))
    return runs


def overflow_runs(plan: Plan) -> dict[str, Wish]:
    """Float16 velocities of size 1,000 at a guidance weight of 100; none where the subject declares no float16."""
    if "float16" not in plan.subject.dtypes:
        return {}
    case = _case(plan).but(num_steps=2, dtype="float16", guidance_scale=plan.subject.spec.neutral_scale + 100)
    return {"float16": _wish(plan, Constant(size=1000.0), case)}


def _case(plan: Plan) -> Case:
    """Two prompts at the smallest size, in float64 where the subject can."""
    case = plan.small.with_batch(2)
    return case.but(dtype="float64") if "float64" in plan.subject.dtypes else case


def _wish(plan: Plan, field: ExactField, case: Case) -> Wish:
    stand_in = in_place_of_network(field, plan.subject.spec, case)
    name = f"oracle-{field.name}-{case.num_steps}-steps"
    if case.guidance_scale != plan.native.guidance_scale:
        name += f"-scale-{case.guidance_scale:g}"
    return Wish(name, case, disturbances=(stand_in,))


def in_place_of_network(field: ExactField, spec: FlowSpec, case: Case) -> Disturbance:
    """The velocity point answers with the field, as the prediction that the spec declares, in the network's dtype."""
    rows_of = _Branches(spec, case.batch, guided=spec.guidance_weight(case.guidance_scale) != 0)

    def answer(inputs: dict[str, Any], like: Tensor) -> Tensor:
        x = inputs.get("x")
        if not isinstance(x, Tensor) or x.dim() < 2 or not x.is_floating_point():
            raise NotInformative("the network is given no state with rows that a field could answer to")
        # Not every device has float64.
        state = x.detach().cpu().double()
        t = flow_times(inputs.get("time"), len(state), spec, "the network")
        flags = torch.zeros(len(state), dtype=torch.bool) if field.same_for_both else rows_of(inputs, state, t)
        prediction = as_prediction(field.velocity(state, t, flags), state, t, spec)
        return prediction.to(like.device, like.dtype)

    return answer_instead(f"{field.name} in place of the network", "velocity", answer)


class _Branches:
    """Which rows of a network call are unconditional: by the indicator, or else by the declared layout."""

    def __init__(self, spec: FlowSpec, batch: int, *, guided: bool) -> None:
        self._spec, self._batch, self._guided = spec, batch, guided
        self._unanswered: list[tuple[Tensor, Tensor]] = []

    def __call__(self, inputs: dict[str, Any], x: Tensor, t: Tensor) -> Tensor:
        rows, layout, null = len(x), self._spec.guidance_layout, inputs.get("null")
        if isinstance(null, Tensor) and null.numel() == rows:
            return null.detach().cpu().reshape(-1).bool() == self._spec.null_means_unconditional
        if layout.startswith("separate"):
            second = self._guided and self._answers(x, t)
            return torch.full((rows,), second == (layout == "separate") and self._guided)
        doubled = rows == 2 * self._batch or (self._guided and rows % 2 == 0)
        later = torch.arange(rows) >= rows // 2
        return (later if layout == "cond_first" else ~later) & torch.tensor(doubled)

    def _answers(self, x: Tensor, t: Tensor) -> bool:
        """Whether this is the second question about a state at its time; states of other times are done with."""
        self._unanswered = [entry for entry in self._unanswered if torch.equal(entry[0][:1], t[:1])]
        for index, (_, state) in enumerate(self._unanswered):
            if state.shape == x.shape and torch.equal(state, x):
                del self._unanswered[index]
                return True
        self._unanswered.append((t, x))
        return False
