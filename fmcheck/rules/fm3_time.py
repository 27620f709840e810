"""FM3: time: grid, monotone, coverage of [0, 1], evaluation point, what the network is told, number of steps."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from fmcheck.plan import Plan, Run, Wish
from fmcheck.rules.evidence import by_step, ends_alike, exact, require, within
from fmcheck.rules.fm3_explain import explain_argument, explain_count, explain_grid, explain_point
from fmcheck.rules.registry import Check, rule
from fmcheck.tolerance import fit_bound, fit_errors, step_bound, time_bound


@rule("FM300", "unreadable-loop", conventions=("guidance_layout", "solver"))
def unreadable_loop(run: Run) -> Iterator[Check]:
    """The velocity calls of a run can be read as evaluations of the declared flow.

    How it goes wrong: rows that are neither B nor 2B nor parts of them, a time argument of another length, two
    guidance calls where the spec declares one. Then no rule about the flow could judge, and a gate that stays green
    because nothing could be read would be worse than none.

    Checked: that the calls of every run add up to whole evaluations. Not informative where a time is NaN (see FM109).

    Fix: correct the call, or the spec: `guidance_layout`, and which arguments play `x`, `time` and `null` in the
    velocity point. Source: the definition of a step, design of fmcheck.
    """
    nan = next((c.name for c in run.trace.of("velocity") if _is_nan(c.inputs.get("time"))), None)
    require(nan is None, f"{nan} is told a time that is NaN (see FM109)")
    reason = run.reading.unreadable
    yield exact(
        reason is None,
        f"{reason}; rules about the flow cannot judge this run",
        diagnosis=None if run.trace.of("velocity") else _not_called(run),
    )


def _is_nan(time: object) -> bool:
    floating = isinstance(time, float) or (isinstance(time, Tensor) and time.is_floating_point())
    return floating and bool(torch.as_tensor(time).isnan().any())


def _not_called(run: Run) -> str:
    path = run.subject.points["velocity"].path
    if run.case.num_steps == 1:
        return f"with one step {path!r} is not called at all: a loop that makes K - 1 steps does so (see FM301)"
    return (
        f"generate() ran without calling {path!r}, the velocity point of the subject; it likely calls another object "
        "(a copy, a compiled or wrapped module): name the one that it calls"
    )


@rule("FM301", "wrong-step-count", conventions=("solver",))
def wrong_step_count(run: Run) -> Iterator[Check]:
    """The loop evaluates the velocity `K * stages` times for K steps (a Heun sampler may save the last corrector).

    How it goes wrong: `linspace(0, 1, K)` has K - 1 intervals, a surplus entry in the list of times, the configured
    number never reaches the loop, the last step is dropped.

    Checked: the number of evaluations of every run, however many network calls each took.

    Fix: `K + 1` edges make K steps. Declare another `solver` if it has more stages. Source: Karras et al., arXiv
    2206.00364, algorithm 1, for the stages of Heun's method.
    """
    spec, steps = run.subject.spec, run.case.num_steps
    counts = {steps * spec.stages} | ({steps * spec.stages - 1} if spec.solver == "heun" else set())
    found = len(run.reading.evaluations)
    yield exact(
        found in counts,
        f"{found} evaluations for {steps} steps of {spec.solver}, expected {' or '.join(map(str, sorted(counts)))}",
        diagnosis=lambda: explain_count(run),
    )


@rule("FM302", "time-not-monotone", conventions=("time_argument", "prediction"))
def time_not_monotone(run: Run) -> Iterator[Check]:
    """Time moves forward in every step: evaluation times strictly increase and every step has positive length.

    How it goes wrong: a random time a step, a grid reversed on one side only, a duplicated last time, times that
    become equal when they are cast to a short dtype or to integers.

    Checked: the first evaluation of every step in flow time, as the network was told, and the length that every step
    really had. Whether the times are the right ones is FM303, FM304 and FM307.

    Fix: build the grid once, sorted; keep times in float32. Source: the flow runs from t = 0 to t = 1 (Lipman et al.,
    arXiv 2210.02747, section 2).
    """
    reading = run.reading
    times = [stages[0].time for stages in reading.steps]
    for k, (before, after) in enumerate(pairwise(times)):
        yield exact(
            after > before,
            f"evaluation time goes from t = {before:.6g} to t = {after:.6g}, expected an increase",
            where=by_step(run, k + 1),
            diagnosis="two steps share one time" if after == before else "time runs backwards",
        )
    for move in reading.full_moves:
        length = move.coefficients.dt
        known = move.coefficients.determined and bool((move.leftover <= fit_bound(move)).all())
        error = fit_errors(move).dt
        # A right step is longer than twice the error with which it is read, or it cannot be told from none.
        expected = float(reading.steps_dt[move.step]) if move.step < len(reading.steps_dt) else 0.0
        if known and (2 * error < expected or abs(length) > error):
            yield exact(
                length > error, f"the step has length {length:.6g}, expected > 0", where=by_step(run, move.step)
            )


@rule("FM303", "wrong-grid", conventions=("grid", "grid_mean", "grid_std", "grid_shift", "grid_clamp"))
def wrong_grid(run: Run) -> Iterator[Check]:
    """The steps that the state really takes are those of the declared grid: `dt[k] = t_edges[k + 1] - t_edges[k]`.

    How it goes wrong: a uniform grid where training used logit-normal times, quantiles clamped to [eps, 1 - eps],
    the variance used as standard deviation, a shift for another resolution, dt of the neighbouring step.

    Checked: the step size recovered from every change of the state by least squares in the recorded velocities,
    against the spec's grid in float64. A state that changes in another way is FM501.

    Fix: `sigmoid(Normal(m, s).icdf(linspace(0, 1, K + 1)))`, or declare the grid that is meant. Source: logit-normal
    times, Esser et al., arXiv 2403.03206, section 3.1; quantile grid, rule of the house.
    """
    reading = run.reading
    observed = _observed_steps(run)
    allowed = step_bound(reading, torch.float32)
    for k, (length, error) in observed.items():
        expected = float(reading.steps_dt[k])
        yield within(
            abs(length - expected),
            float(allowed[k]) + error,
            f"the step has length {length:.7g}, expected {expected:.7g}",
            where=by_step(run, k),
            diagnosis=lambda: explain_grid(observed, run),
        )


def _observed_steps(run: Run) -> dict[int, tuple[float, float]]:
    """Length of every readable step, and the error with which it can be read."""
    return run.memo(_recover_steps)


def _recover_steps(run: Run) -> dict[int, tuple[float, float]]:
    reading = run.reading
    moves = reading.full_moves
    steps = reading.case.num_steps
    require(len(reading.steps) == steps, f"{len(reading.steps)} steps were taken instead of {steps} (see FM301)")
    observed = {}
    for move in moves:
        fitted = move.coefficients
        if not fitted.determined or not bool((move.leftover <= fit_bound(move)).all()):
            continue
        error = fit_errors(move).dt
        # An error as large as the step could not tell it from a step that was never taken.
        if error < float(reading.steps_dt[move.step]):
            observed[move.step] = fitted.dt, error
    return observed


@rule("FM304", "wrong-evaluation-point", conventions=("evaluation_point", "solver"))
def wrong_evaluation_point(run: Run) -> Iterator[Check]:
    """Inside its step the velocity is evaluated at the declared time: midpoint or left edge; the solver's stages.

    How it goes wrong: edges where midpoints are meant, the right edge, the midpoint of the quantiles in place of the
    midpoint of the times, a stale time in Heun's second stage. The error of every step grows and the picture is only
    a little worse.

    Checked: every evaluation time that lies in its step, in flow time, against the spec's grid in float64 with a
    bound for the precision of the time argument. A time outside its step is FM307; a wrong grid is FM303.

    Fix: evaluate where `evaluation_point` and `solver` say, or declare the other point. Source: midpoint quadrature
    of the step; Karras et al., arXiv 2206.00364, algorithm 1, for Heun.
    """
    reading = run.reading
    require(len(reading.steps) == run.case.num_steps, "the number of steps is wrong (see FM301)")
    require(_grid_holds(run), "the grid is not the declared one (see FM303)")
    inside = _time_slack(run)
    for told in _told_times(run, inside):
        if told.outside > told.slack:
            continue
        yield within(
            abs(told.time - told.expected),
            told.slack,
            f"the velocity is evaluated at t = {told.time:.7g}, expected {told.expected:.7g} in "
            f"[{told.low:.6g}, {told.high:.6g}]",
            where=told.where,
            diagnosis=lambda: explain_point(run, inside),
        )


@dataclass(frozen=True)
class _Told:
    """The time that one evaluation was told, the step `[low, high]` that it serves, and what the spec expects."""

    time: float
    expected: float
    slack: float
    low: float
    high: float
    where: str

    @property
    def outside(self) -> float:
        """How far the time lies outside its step."""
        return max(self.low - self.time, self.time - self.high, 0.0)


def _told_times(run: Run, slack: Tensor) -> Iterator[_Told]:
    reading = run.reading
    edges, expected, bounds = reading.edges.tolist(), reading.evaluation_times.tolist(), slack.tolist()
    for k, stages in enumerate(reading.steps):
        for stage, evaluation in enumerate(stages):
            where = f"{by_step(run, k)}, stage {stage}"
            yield _Told(evaluation.time, expected[k][stage], bounds[k][stage], edges[k], edges[k + 1], where)


def _grid_holds(run: Run) -> bool:
    reading = run.reading
    allowed = step_bound(reading, torch.float32)
    steps = _observed_steps(run).items()
    return all(abs(dt - float(reading.steps_dt[k])) <= float(allowed[k]) + error for k, (dt, error) in steps)


def _time_slack(run: Run) -> Tensor:
    # Half precision times are FM102's and FM302's to report; here they only widen what can be told apart.
    return time_bound(run.reading, run.reading.argument_dtype)


@rule("FM305", "uncovered-path", conventions=("grid", "grid_clamp", "prediction"))
def uncovered_path(run: Run) -> Iterator[Check]:
    """The steps cover the whole path: `sum(dt) = 1`.

    How it goes wrong: quantiles clamped to [1e-6, 1 - 1e-6] lose 1.7% of the path for every number of steps, a clamp
    of 1e-3 loses 8.7%, a dropped last step loses that step. No number of steps repairs it.

    Checked: the sum of the step sizes recovered from the state. A clamp that the spec declares is a warning that
    says how much is lost; any other loss is an error.

    Fix: `q = linspace(0, 1, K + 1)`; `icdf(0) = -inf` and `sigmoid(-inf) = 0` are exact. Source: telescoping sum of
    the edges.
    """
    reading = run.reading
    observed = _observed_steps(run)
    require(len(observed) == run.case.num_steps, "not every step size can be read")
    covered = sum(length for length, _ in observed.values())
    declared = float(reading.edges[-1] - reading.edges[0])
    allowed = float(step_bound(reading, torch.float32).sum()) + sum(error for _, error in observed.values())
    yield within(
        abs(covered - declared),
        allowed,
        f"the steps sum to {covered:.6g}, expected {declared:.6g}: {abs(1 - covered):.2%} of the path is "
        f"{'never integrated' if covered < 1 else 'integrated beyond its end'}",
        diagnosis=lambda: explain_grid(observed, run),
    )
    if run.subject.spec.grid_clamp:
        yield exact(
            False,
            f"the declared clamp {run.subject.spec.grid_clamp:g} leaves {1 - declared:.2%} of the path out, "
            "and no number of steps repairs it",
            severity="warning",
        )


def _repeats(plan: Plan) -> dict[str, Wish]:
    return {"base": plan.base, "seed": plan.other_seed, "rng": plan.other_rng, "again": plan.again}


@rule("FM306", "grid-not-deterministic", wishes=_repeats)
def grid_not_deterministic(runs: Mapping[str, Run]) -> Iterator[Check]:
    """The same number of steps gives the same times in every run, whatever the seed and whatever ran before.

    How it goes wrong: a random time a step as in training, a grid cached for another number of steps, a set-up that
    appends to the previous one.

    Checked: all times that the network was told, bit for bit: another seed, disturbed global generators, and the
    same case again after another size.

    Fix: a pure function of the number of steps. Source: quantile grid, rule of the house.
    """
    expected = _told(runs["base"])
    for name in ("seed", "rng", "again"):
        told = _told(runs[name])
        yield exact(
            told == expected,
            f"the times differ from those of run base although the number of steps is the same: first "
            f"{told[0]:.6g} against {expected[0]:.6g}, {len(told)} against {len(expected)} evaluations",
            where=f"run {runs[name].name}",
            diagnosis="times are drawn at random"
            if len(told) == len(expected)
            else "the grid depends on earlier calls",
        )


def _told(run: Run) -> list[float]:
    return [evaluation.time for evaluation in run.reading.evaluations]


@rule("FM307", "wrong-time-argument", conventions=("time_argument", "time_offset", "time_slope"))
def wrong_time_argument(run: Run) -> Iterator[Check]:
    """The network is told the time of the step it serves: `log_snr = 4 - 8 t` with t inside `[t[k], t[k + 1]]`.

    How it goes wrong: the sign or the scale of the map, `1 - t`, the step index or a percentage in place of the time,
    sigma where log-SNR is meant. The network answers for another noise level than the state has.

    Checked: every time argument, mapped back by the spec, must lie within the step of the declared grid.

    Fix: one function `log_snr(t)` that training and sampling share, or declare `time_argument`. Source: rule of the
    house; the pairing of time and noise level, Kingma et al., arXiv 2107.00630.
    """
    reading = run.reading
    require(len(reading.steps) == run.case.num_steps, "the number of steps is wrong (see FM301)")
    require(_grid_holds(run), "the grid is not the declared one (see FM303)")
    offset, slope = run.subject.spec.time_map
    for told in _told_times(run, _time_slack(run)):
        yield within(
            told.outside,
            told.slack,
            f"the network is told {run.subject.spec.time_argument} = {offset + slope * told.time:.6g}, which is t = "
            f"{told.time:.6g}, in the step [{told.low:.6g}, {told.high:.6g}]; "
            f"expected {offset + slope * told.expected:.6g}",
            where=told.where,
            diagnosis=lambda: explain_argument(run),
        )


@rule("FM308", "rows-at-different-times")
def rows_at_different_times(run: Run) -> Iterator[Check]:
    """All rows of an evaluation have one time: `time = full((N,), t_k)`.

    How it goes wrong: a time a row as in training, a time that varies along another axis by broadcasting, only the
    first half filled.

    Checked: every row of every evaluation, bit for bit, both branches.

    Fix: `torch.full((N,), t)`. Source: one integrator serves the batch, rule of the house.
    """
    for k, evaluation in enumerate(run.reading.evaluations):
        low, high = float(evaluation.time_rows.min()), float(evaluation.time_rows.max())
        yield exact(
            low == high,
            f"rows are evaluated at times from t = {low:.6g} to t = {high:.6g}, expected one",
            where=f"evaluation {k}",
        )


def _step_counts(plan: Plan) -> dict[str, Wish]:
    return {"one": plan.one_step, "base": plan.base, "more": plan.more_steps}


@rule("FM309", "steps-ignored", wishes=_step_counts)
def steps_ignored(runs: Mapping[str, Run]) -> Iterator[Check]:
    """The number of steps that is asked for is the number that is taken, and more steps change the result.

    How it goes wrong: the argument never reaches the grid, a configured default wins, large values are cut.

    Checked: the number of evaluations for three numbers of steps, which must differ, and the images of two of them.
    Not informative about the images when every velocity is zero.

    Fix: pass the argument on. Source: argument liveness.
    """
    counts = {run.case.num_steps: len(run.reading.evaluations) for run in runs.values()}
    yield exact(
        len(set(counts.values())) == len(counts),
        "steps asked for and evaluations made: " + ", ".join(f"{k} -> {n}" for k, n in sorted(counts.items())),
    )
    base, more = runs["base"], runs["more"]
    if any(bool(e.v_cond.any()) for e in base.reading.evaluations):
        yield exact(
            not ends_alike(base, more),
            f"{base.case.num_steps} and {more.case.num_steps} steps give the same images",
        )


def _shifted(plan: Plan) -> dict[str, Wish]:
    return {"base": plan.base, "shifted": plan.shifted_time}


@rule("FM310", "time-ignored", needs=("velocity", "velocity.time"), wishes=_shifted)
def time_ignored(runs: Mapping[str, Run]) -> Iterator[Check]:
    """The velocity depends on its time: another time argument at the same state gives another velocity.

    How it goes wrong: the time embedding is multiplied by zero, overwritten, truncated to an integer, or computed and
    not used; a keyword of another name swallows it.

    Checked: the first evaluation of a run in which the recorder hands the network a time that is a quarter of the
    range away. Not informative when every velocity is zero (an untrained zero-initialised output layer).

    Fix: feed the time embedding into every block. Source: the velocity field is v(x, t), arXiv 2210.02747, section 2.
    """
    base, shifted = (runs[name].reading.evaluations[0] for name in ("base", "shifted"))
    require(bool(base.v_cond.any()), "every velocity is zero (zero-initialised output layer?)")
    yield exact(
        not torch.equal(base.v_cond, shifted.v_cond),
        "a time argument a quarter of the range away gives the same velocity, bit for bit",
        diagnosis="the network ignores its time argument",
    )
