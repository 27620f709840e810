"""FM5 on exact fields: the user's whole loop against flows that are known, and the order in which it converges."""

import math
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor

from fmcheck.oracles import FIELDS, ORDER_FIELD, field_runs, order_runs
from fmcheck.plan import Run
from fmcheck.rules.effective import end_of
from fmcheck.rules.evidence import exact, measured, require, within
from fmcheck.rules.fm5_hypotheses import explain_end
from fmcheck.rules.fm5_integration import worst
from fmcheck.rules.registry import Check, rule
from fmcheck.tolerance import Shadow, end_bound, shadow

# Of another method nothing is known but that it converges.
ORDERS = {"euler": 1, "midpoint": 2, "heun": 2, "other": 1}


@rule("FM504", "off-exact-flow", conventions=("grid", "evaluation_point", "solver", "prediction"), wishes=field_runs)
def off_exact_flow(runs: Mapping[str, Run]) -> Iterator[Check]:
    """With a known field in the network's place, the loop ends where the declared method ends, to rounding.

    How it goes wrong: any slip in grid, evaluation times, guidance, update or number of steps that leaves each single
    call plausible: edges for midpoints, a dropped last step, a stale second stage, a shift applied twice, a state in a
    short dtype, an increment that is scaled, a state that is touched after the loop.

    Checked: the recorder answers in the network's place with velocities in closed form and lets the user's `generate`
    run: a field nonlinear in state and time, a polynomial in time, a rotation of channels, Gaussian data, a mixture of
    Gaussians. The final state is compared elementwise with the declared method on the declared grid in float64, from
    the state that the loop started at, within a running error bound. It cannot see what happens before the loop, nor
    whether the declared method itself is a good one (FM503).

    Fix: as the diagnosis says; it names the wrong loop that ends at the same place. Source: exact solutions as
    oracles, property D of the collected defects; error analysis, Higham, section 3.3.
    """
    cause = _Cause()
    for name, run in runs.items():
        end, expected = end_of(run), shadow(FIELDS[name], run.reading)
        require(end.shape == expected.end.shape, "the final state has another shape than the initial one (see FM601)")
        used, allowed = worst((end - expected.end).abs(), expected.bound)
        yield within(
            used,
            allowed,
            f"on a field with a known flow the loop ends {used:.3g} away from the declared method in float64, "
            f"rounding allows {allowed:.3g}",
            where=f"run {run.name}",
            diagnosis=partial(cause.of, name, run, end, expected),
        )


class _Cause:
    """The mistake that one field shows serves for the others: the first ones tell more mistakes apart."""

    def __init__(self) -> None:
        self._found: str | None = None

    def of(self, name: str, run: Run, end: Tensor, expected: Shadow) -> str | None:
        if self._found is None:
            self._found = explain_end(FIELDS[name], run.reading, end, expected.end, expected.bound)
        return self._found


@rule("FM503", "wrong-order", conventions=("solver",), wishes=order_runs)
def wrong_order(runs: Mapping[str, Run]) -> Iterator[Check]:
    """The loop converges to the exact flow, in the order of the declared method: 1 for Euler, 2 for midpoint and Heun.

    How it goes wrong: a second stage at a stale time or state makes a second-order method a first-order one; a part of
    the path that is never integrated, a wrong field of the guidance or an update of another length leave an error
    that no number of steps repairs.

    Checked: the final states of 4, 8 and 16 steps on a field nonlinear in state and time, against its exact solution.
    The order is the slope of the error (rms) in the grid's own measure `S = sum(dt^(p + 1))`, to which the error of a
    method of order p is proportional: the quantile grid's first steps shrink like `exp(-sqrt(2 ln K))` only, so that on
    it the slope in K itself is about 0.75 for Euler and 1.1 for the others. The two slopes are extrapolated once; less
    than half an order below that of the declared method fails, which is halfway to the next one. Not informative where
    rounding could decide it.

    Fix: as FM501 and FM504 say for the step in question. Source: Hairer, Norsett, Wanner, Solving Ordinary
    Differential Equations I, section II.3; the measure of a grid is the sum of its local errors.
    """
    ordered = sorted(runs.values(), key=lambda run: run.case.num_steps)
    solver = ordered[0].subject.spec.solver
    require(solver != "stochastic", "the loop draws noise on the way, and follows no flow")
    declared = ORDERS[solver]
    errors = [_distance(run, end_of(run)) for run in ordered]
    rounding = [_rounding(run) for run in ordered]
    known = solver != "other"
    sizes = [float(_lengths(run).pow(declared + 1).sum()) for run in ordered]
    order = _order(errors, sizes, declared)
    # A Heun sampler that saves its last corrector ends with an Euler step, which a coarse end of a grid shows.
    of_method = _order([_distance(run, _by_method(run)) for run in ordered], sizes, declared) if known else declared
    least = min(declared, of_method) - 0.5
    lowest, highest = (_order(_off(errors, rounding, sign), sizes, declared) for sign in (1, -1))
    require(
        highest <= least or lowest > least,
        f"rounding of up to {rounding[-1]:.2g} in an error of {errors[-1]:.2g} leaves the order open, "
        f"{lowest:.2g} to {highest:.2g}",
    )
    yield measured(
        f"order of convergence {order:.2f} ({solver}: {declared}); error {errors[-1]:.2g} = "
        f"{errors[-1] / sizes[-1]:.2g} sum(dt^{declared + 1}) at {ordered[-1].case.num_steps} steps"
    )
    counts = ", ".join(str(run.case.num_steps) for run in ordered)
    shown = ", ".join(f"{error:.3g}" for error in errors)
    yield exact(
        highest > least,
        f"the order of convergence is {order:.2f}, expected {min(declared, of_method):.2f}: "
        f"errors {shown} with {counts} steps",
        where=f"runs on the field {ORDER_FIELD.name!r}",
        diagnosis=lambda: _explain_order(ordered[-1], order, errors, sizes),
    )


def _by_method(run: Run) -> Tensor:
    return shadow(ORDER_FIELD, run.reading).end


def _rounding(run: Run) -> float:
    """Root mean square of the bound on a correct loop's own rounding."""
    return float(end_bound(ORDER_FIELD, run.reading, end_of(run)).square().mean().sqrt())


def _order(errors: list[float], sizes: list[float], declared: int) -> float:
    """The slope of the last three errors in the grid's measure, extrapolated once."""
    ratios = zip(pairwise(errors), pairwise(sizes), strict=True)
    slopes = [declared * math.log(e / f) / math.log(s / t) for (e, f), (s, t) in ratios]
    return 2 * slopes[-1] - slopes[-2]


def _off(errors: list[float], rounding: list[float], sign: int) -> list[float]:
    """Three errors as far off as rounding may have them, so that their order is the lowest (1) or the highest (-1)."""
    signs = (sign, -sign, sign)
    least = math.ulp(1.0)
    return [max(e + s * r, least) for e, r, s in zip(errors, rounding, signs, strict=True)]


def _distance(run: Run, end: Tensor) -> float:
    """Root mean square distance of an end from the exact solution over the declared interval, from a run's start."""
    reading = run.reading
    start, edges = reading.start, reading.edges
    solution = ORDER_FIELD.flow(start, edges[0], edges[-1], reading.weight)
    require(end.shape == solution.shape, "the final state has another shape than the initial one (see FM601)")
    return float((end - solution).square().mean().sqrt())


def _lengths(run: Run) -> Tensor:
    """The lengths of the steps as made, where all can be read, or else as declared."""
    if run.subject.spec.solver == "other":
        return run.reading.steps_dt
    found = torch.tensor(run.reading.effective_dt, dtype=torch.float64)
    whole = len(found) == run.case.num_steps and bool(((found > 0) & (found < 1)).all())
    return found if whole else run.reading.steps_dt


def _explain_order(run: Run, order: float, errors: list[float], sizes: list[float]) -> str:
    cause = None
    if run.subject.spec.solver != "other":
        expected = shadow(ORDER_FIELD, run.reading)
        cause = explain_end(ORDER_FIELD, run.reading, end_of(run), expected.end, expected.bound)
    # What is left of the error where the grid's measure goes to zero.
    limit = errors[-1] - (errors[-2] - errors[-1]) / (sizes[-2] - sizes[-1]) * sizes[-1]
    if cause is None and limit > errors[-1] / 2:
        return f"the error tends to about {limit:.2g}, and no number of steps makes it vanish (see FM505)"
    return cause or f"the loop is a method of order {max(round(order), 0)}"
