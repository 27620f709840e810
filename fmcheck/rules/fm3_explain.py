"""Diagnoses of family FM3: the known mistakes about time, recomputed and compared with what was observed."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from fmcheck.flow import from_argument, time_edges, to_argument
from fmcheck.plan import Run
from fmcheck.spec import FlowSpec
from fmcheck.tolerance import EXPLAINED, step_bound

# Length of every readable step, and the error with which it was read.
Steps = Mapping[int, tuple[float, float]]


def explain_grid(observed: Steps, run: Run) -> str | None:
    """The known wrong grid whose steps are the observed ones."""
    right = run.reading.steps_dt
    rounding = float(step_bound(run.reading, torch.float32).max())
    for candidate, text in _wrong_steps(run):
        # A candidate that is the right grid too explains nothing.
        if float((candidate - right).abs().max()) > rounding and _same_steps(observed, right, candidate):
            return text
    return _explain_shares(observed, right)


def _explain_shares(observed: Steps, right: Tensor) -> str | None:
    """One factor for all steps, or a single wrong step."""
    lengths = torch.tensor([length for length, _ in observed.values()], dtype=torch.float64)
    share = lengths / right[list(observed)]
    if len(lengths) > 1 and float(share.max() - share.min()) <= EXPLAINED * float(share.abs().max()):
        return f"every step is {float(share.mean()):.6g} times as long as it should be"
    away = (share - 1).abs()
    k = int(away.argmax())
    if len(lengths) > 1 and float(away.sum() - away[k]) <= EXPLAINED * float(away[k]):
        which = list(observed)[k]
        name = "the last step" if which == len(right) - 1 else f"step {which}"
        return f"only {name} is wrong: it is {float(share[k]):.4g} times as long as it should be"
    return None


def _wrong_steps(run: Run) -> Iterator[tuple[Tensor, str]]:
    steps, right, edges = run.case.num_steps, run.reading.steps_dt, run.reading.edges
    for spec, text in wrong_grids(run.subject.spec):
        yield time_edges(steps, spec).diff(), text
    yield right.flip(0), "the steps are taken in reversed order"
    yield right.roll(-1), "each step has the length of the next one"
    yield right.roll(1), "each step has the length of the previous one"
    for dtype in (torch.bfloat16, torch.float16):
        name = str(dtype).removeprefix("torch.")
        yield edges.to(dtype).double().diff(), f"the edges of the grid are rounded to {name}"
        yield edges.to(dtype).diff().double(), f"the grid is computed in {name}"
        yield (1 - (1 - edges).to(dtype).double()).diff(), f"the sigmas of the grid are rounded to {name}"
        yield right.to(dtype).double(), f"the step sizes are rounded to {name}"


def wrong_grids(spec: FlowSpec) -> Iterator[tuple[FlowSpec, str]]:
    """Specs of the grids that are used in place of the declared one, and what went wrong with them."""
    if spec.grid_terminal is not None:
        yield replace(spec, grid_terminal=None), "the levels are not stretched to the terminal one"
    if spec.grid_last_sigma is not None:
        yield replace(spec, grid_last_sigma=None), "the levels before the shift end at 1 / K"
    plain = _plain(spec)
    for eps in (1e-6, 1e-5, 1e-4, 1e-3, 1e-2):
        lost = 1 - float(time_edges(1, replace(plain, grid_clamp=eps)).diff())
        yield replace(plain, grid_clamp=eps), f"quantiles are clamped to [{eps:g}, 1 - {eps:g}], which loses {lost:.2%}"
    yield replace(plain, grid_clamp=0.0), "the declared clamp is not applied"
    yield replace(plain, grid="uniform", grid_clamp=0.0), "the grid is uniform"
    yield (
        replace(plain, grid="logit_normal", grid_mean=0.0, grid_std=1.0, grid_clamp=0.0),
        "the grid is the quantile grid of the standard logit-normal",
    )
    yield replace(plain, grid_std=spec.grid_std**2), "the variance is used as standard deviation"
    yield replace(plain, grid_std=spec.grid_std**0.5), "the standard deviation is used as variance"
    yield replace(plain, grid_mean=-spec.grid_mean), "the mean of the logit-normal has the wrong sign"
    for shift in (1.0, 3.0, 1 / spec.grid_shift, spec.grid_shift**2):
        yield replace(plain, grid="shifted", grid_shift=shift), f"the grid is uniform with shift {shift:g}"


def _plain(spec: FlowSpec) -> FlowSpec:
    """The spec without what only a grid of its own kind may have."""
    bare = replace(spec, grid_last_sigma=None, grid_terminal=None, grid_edges=None, grid_shift_by_tokens=None)
    return replace(bare, grid="uniform") if spec.grid == "declared" else bare


def _same_steps(observed: Steps, right: Tensor, candidate: Tensor) -> bool:
    """Whether a grid gives all observed steps, up to a small part of its distance from the right grid."""
    apart = EXPLAINED * float((candidate - right).abs().max())
    return all(abs(length - float(candidate[k])) <= error + apart for k, (length, error) in observed.items())


def explain_count(run: Run) -> str | None:
    """Why there are more or fewer evaluations than the steps ask for."""
    reading, stages = run.reading, run.subject.spec.stages
    expected = reading.evaluation_times.reshape(-1)
    told = torch.tensor([evaluation.time for evaluation in reading.evaluations], dtype=torch.float64)
    if len(told) == len(expected) + 1:
        # Half a step tells one evaluation from the next.
        near = float(reading.steps_dt.min()) / 2
        if float((told[:-1] - expected).abs().max()) <= near:
            return "the network is called once more after the last step (a preview?), which no step uses"
        if float((told[1:] - expected).abs().max()) <= near:
            return "the network is called once before the loop (a warm-up?), which no step uses"
    if abs(len(told) - len(expected)) == stages:
        return "edges are counted as steps"
    if 2 * len(told) == len(expected) and stages == 2:
        return "the loop makes one evaluation a step: another solver than declared"
    return (
        "the loop makes two evaluations a step: another solver than declared"
        if len(told) == 2 * len(expected)
        else None
    )


def explain_point(run: Run, slack: Tensor) -> str | None:
    """The known wrong place inside the steps at which all evaluations lie."""
    reading = run.reading
    full = [[e.time for e in stages] for stages in reading.steps if len(stages) == slack.shape[1]]
    if not full:
        return None
    told = torch.tensor(full, dtype=torch.float64)
    edges, first = reading.edges, told[:, 0]
    quantiles = torch.linspace(0, 1, 2 * run.case.num_steps + 1, dtype=torch.float64)[1::2]
    middle_quantile = torch.sigmoid(
        run.subject.spec.grid_mean + run.subject.spec.grid_std * torch.special.ndtri(quantiles)
    )
    places = (
        (edges[:-1], "the velocity is evaluated at the left edge"),
        (edges[1:], "the velocity is evaluated at the right edge"),
        ((edges[:-1] + edges[1:]) / 2, "the velocity is evaluated at the midpoint"),
        (middle_quantile, "the midpoint is taken between the quantiles, not between the times"),
    )
    found = _explain_rounded_times(run, told, slack)
    if found:
        return found
    for place, text in places:
        if len(place) == len(first) and bool(((first - place).abs() <= slack[:, 0]).all()):
            if told.shape[1] > 1 and float((told[:, 1] - told[:, 0]).abs().max()) == 0:
                return "the second stage is evaluated at the time of the first"
            return None if _right_place(run, place) else text
    return None


def _explain_rounded_times(run: Run, told: Tensor, slack: Tensor) -> str | None:
    spec, expected = run.subject.spec, run.reading.evaluation_times
    if told.shape != expected.shape:
        return None
    argument = to_argument(expected, spec)
    roundings = (
        (argument.to(torch.bfloat16).double(), "the time argument is rounded to bfloat16"),
        (argument.to(torch.float16).double(), "the time argument is rounded to float16"),
        (argument.round(), "the time argument is rounded to a whole number"),
        (argument.trunc(), "the time argument is cut to a whole number"),
    )
    for value, text in roundings:
        if bool(((from_argument(value, spec) - told).abs() <= slack).all()):
            return text
    late = told - expected
    if told.numel() > 1 and float(late.max() - late.min()) <= 2 * float(slack.max()):
        return f"every time is {float(late.mean()):.4g} late"
    return None


def _right_place(run: Run, place: Tensor) -> bool:
    return torch.equal(place, run.reading.evaluation_times[:, 0])


def explain_argument(run: Run) -> str | None:
    """The known wrong map from time to the network's argument that gives all observed values."""
    spec = run.subject.spec
    t = run.reading.evaluation_times.reshape(-1)
    seen = torch.tensor([e.time for stages in run.reading.steps for e in stages], dtype=torch.float64)
    told = to_argument(seen, spec)
    if len(told) != len(t):
        return None
    slope = spec.time_map[1]
    index = torch.arange(len(t), dtype=torch.float64)
    candidates = (
        (to_argument(1 - t, spec), "time runs the other way: the network is told the argument of 1 - t"),
        (-to_argument(t, spec), "the sign of the argument is wrong"),
        (t, "the network is told t itself"),
        (1 - t, "the network is told sigma = 1 - t"),
        (1000 * t, "the network is told 1000 t"),
        (1000 * (1 - t), "the network is told the timestep 1000 (1 - t)"),
        (index, "the network is told the index of the step"),
        (t.logit() * 2, "the network is told the log-SNR of the straight path, 2 log(t / (1 - t))"),
        (-t.logit() * 2, "the network is told minus the log-SNR of the straight path"),
        (to_argument(t, spec) / 2, "the argument is halved"),
        (to_argument(t, spec) * 2, "the argument is doubled"),
        (slope * t, "the offset of the map is missing"),
    )
    for value, text in candidates:
        # Relative to the candidate: next to timesteps up to 1000 every number below 1 would look alike.
        # Where the path ends the log-SNR of the straight path is infinite, and explains nothing.
        known = bool(value.isfinite().all())
        if known and bool(((told - value).abs() <= EXPLAINED * value.abs().max()).all()):
            return text
    if len(told) > 1 and float(told.max() - told.min()) == 0:
        return f"the network is told the same value {float(told[0]):.6g} in every step"
    return None
