"""The quantity that a rule judges over the steps of a run, expected and observed."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch

from fmcheck.errors import NotInformative
from fmcheck.plan import Run
from fmcheck.plots.times import Numbers, Told, steps_of, told_of
from fmcheck.plots.velocities import declared_velocity
from fmcheck.record.reading import Move
from fmcheck.record.trace import Call
from fmcheck.rules.fm5_integration import worst
from fmcheck.tensors import rms_rows
from fmcheck.tolerance import fit_bound, fit_errors

__all__ = ["Flags", "Panel", "quantity"]


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One quantity over steps or evaluations.

    Attributes:
        x: places; `expected` and `observed` have one entry each, NaN where there is none.
        marked: indices of the entries that the findings are about.
        low, high: ends of the range of the rows at every place; empty where they are alike.
        is_error: whether `observed` is an error and `expected` its bound, for a log axis.
    """

    title: str
    x_label: str
    y_label: str
    x: Numbers
    expected: Numbers
    observed: Numbers
    marked: tuple[int, ...] = ()
    is_error: bool = False
    expected_label: str = "expected"
    observed_label: str = "observed"
    error_of: str = ""
    low: Numbers = ()
    high: Numbers = ()


@dataclass(frozen=True, kw_only=True)
class Flags:
    """The null indicator of one run as the calls were given it, `[call][row]`: 1 unconditional, 0 not, NaN no flag."""

    observed: tuple[Numbers, ...]
    expected: tuple[Numbers, ...]
    batch: int


def quantity(code: str, run: Run, named: frozenset[int]) -> tuple[tuple[Panel, ...], Flags | None]:
    """The panels of a rule; none where the run cannot be read, or the rule judges nothing over steps.

    Args:
        named: the steps, or evaluations, that its findings name; they are marked.
    """
    try:
        if code == "FM201":
            return (), _null_flags(run)
        gather = _GATHER.get(code)
        return (tuple(gather(run, named)) if gather else ()), None
    except NotInformative:
        return (), None


def _guidance(run: Run, named: frozenset[int]) -> Iterable[Panel]:
    moves = [move for move in run.reading.full_moves if move.uncond is not None]
    if not moves:
        raise NotInformative("no unconditional velocity")
    steps = tuple(float(move.step) for move in moves)
    marked = tuple(i for i, move in enumerate(moves) if move.step in named)
    yield Panel(
        title="The state moves along u + s (c - u)",
        x_label="step",
        y_label="s, recovered from the state",
        x=steps,
        expected=tuple(1 + move.weight for move in moves),
        observed=tuple(_scale(move) for move in moves),
        marked=marked,
    )
    dt = run.reading.steps_dt.tolist()
    known = [move for move in moves if move.step < len(dt)]
    yield Panel(
        title="Size of the velocity that moved the state",
        x_label="step",
        y_label="root mean square",
        x=tuple(float(move.step) for move in known),
        expected=tuple(_rms(declared_velocity(move)) for move in known),
        observed=tuple(_rms(move.delta) / (move.fraction * dt[move.step]) for move in known),
        marked=tuple(i for i, move in enumerate(known) if move.step in named),
        expected_label="(1 + w) c - w u",
        observed_label="change of the state / dt",
    )


def _scale(move: Move) -> float:
    fitted = move.coefficients
    readable = fitted.determined and fitted.dt != 0 and not move.alike
    return 1 + fitted.weight if readable and math.isfinite(fit_errors(move).dt) else math.nan


def _halves(run: Run, named: frozenset[int]) -> Iterable[Panel]:
    made = run.reading.evaluations
    both = [(i, e.x_cond, e.x_uncond) for i, e in enumerate(made) if e.x_uncond is not None]
    if any(cond.shape != uncond.shape for _, cond, uncond in both) or not both:
        raise NotInformative("the branches have states of several shapes")
    place = tuple(float(i) for i, _, _ in both)
    yield Panel(
        title="State of the unconditional branch - state of the conditional branch",
        x_label="evaluation of the network",
        y_label="root mean square of the difference",
        x=place,
        expected=(0.0,) * len(both),
        observed=tuple(_rms(uncond.double() - cond.double()) for _, cond, uncond in both),
        marked=tuple(j for j, (i, _, _) in enumerate(both) if i in named),
    )


def _argument(told: Told, marked: tuple[int, ...]) -> Panel:
    return Panel(
        title=f"Time argument: {told.map}",
        x_label="step",
        y_label=f"{told.name} told to the network",
        x=told.position,
        expected=told.argument(told.expected),
        observed=told.argument(told.times),
        marked=marked,
        low=told.argument(told.low) if told.apart else (),
        high=told.argument(told.high) if told.apart else (),
    )


def _told(run: Run, named: frozenset[int]) -> Iterable[Panel]:
    told = told_of(run)
    yield _argument(told, tuple(i for i, place in enumerate(told.position) if math.floor(place) in named))
    yield Panel(
        title="Distance from the declared time",
        x_label="step",
        y_label="flow time",
        x=told.position,
        expected=told.allowed,
        observed=tuple(abs(t - e) for t, e in zip(told.times, told.expected, strict=True)),
        is_error=True,
        error_of="time told",
    )


def _rows_apart(run: Run, named: frozenset[int]) -> Iterable[Panel]:
    told = told_of(run)
    marked = tuple(i for i in range(told.made) if i in named)
    yield _argument(told, marked)
    yield Panel(
        title="Largest time of a row - smallest time of a row",
        x_label="step",
        y_label="flow time",
        x=told.position,
        expected=(0.0,) * len(told.position),
        observed=tuple(high - low for low, high in zip(told.low, told.high, strict=True)),
        marked=marked,
    )


def _path(run: Run, named: frozenset[int]) -> Iterable[Panel]:
    """Lengths and times, for rules about where the whole loop ends."""
    if not steps_of(run).reason:
        yield next(iter(_grid(run, named)))
    yield next(iter(_told(run, named)))


def _grid(run: Run, named: frozenset[int]) -> Iterable[Panel]:
    steps = steps_of(run)
    if steps.reason:
        raise NotInformative(steps.reason)
    count = max(len(steps.lengths), len(steps.taken))
    yield Panel(
        title="Step sizes",
        x_label="step",
        y_label="dt in flow time",
        x=tuple(float(k) for k in range(count)),
        expected=_filled(steps.lengths, count),
        observed=_filled(steps.taken, count),
        marked=tuple(k for k in range(len(steps.taken)) if k in named),
    )
    yield Panel(
        title="Flow time passed",
        x_label="in front of step",
        y_label="flow time t",
        x=tuple(float(k) for k in range(count + 1)),
        expected=_filled(steps.edges, count + 1),
        observed=_filled(steps.passed, count + 1),
    )


def _last_update(run: Run, named: frozenset[int]) -> Iterable[Panel]:
    yield from _update(run, frozenset({run.case.num_steps - 1}))


def _update(run: Run, named: frozenset[int]) -> Iterable[Panel]:
    dt = run.reading.steps_dt.tolist()
    moves = [move for move in run.reading.moves if move.step < len(dt)]
    place = tuple(move.step + (1.0 if move.closes else 0.5) for move in moves)
    marked = tuple(i for i, move in enumerate(moves) if move.step in named)
    wanted = [move.start.double() + move.fraction * dt[move.step] * declared_velocity(move) for move in moves]
    yield Panel(
        title="State behind every step",
        x_label="behind step, counted from 1",
        y_label="root mean square of the state",
        x=place,
        expected=tuple(_rms(state) for state in wanted),
        observed=tuple(_rms(move.end) for move in moves),
        marked=marked,
        expected_label="x + dt v, from the state in front of the step",
    )
    errors = [worst(move.leftover, fit_bound(move)) if move.coefficients.determined else _UNREAD for move in moves]
    yield Panel(
        title="Change of the state that no velocity explains",
        x_label="behind step, counted from 1",
        y_label="largest element",
        x=place,
        expected=tuple(allowed for _, allowed in errors),
        observed=tuple(used for used, _ in errors),
        is_error=True,
        error_of="update",
    )


_UNREAD = (math.nan, math.nan)


def _rms(tensor: torch.Tensor) -> float:
    per_row = rms_rows(tensor)
    return math.sqrt(sum(r * r for r in per_row) / len(per_row))


def _filled(values: Numbers, count: int) -> Numbers:
    return (*values, *([math.nan] * (count - len(values))))


def _null_flags(run: Run) -> Flags:
    spec, batch = run.subject.spec, run.case.batch
    observed: list[Numbers] = []
    expected: list[Numbers] = []
    for call in run.trace.of("velocity"):
        x, null = call.inputs.get("x"), call.inputs.get("null")
        if not isinstance(x, torch.Tensor) or not x.dim():
            raise NotInformative("a state is no tensor with rows")
        if isinstance(null, torch.Tensor) and null.shape == x.shape[:1]:
            observed.append(tuple((null.bool() == spec.null_means_unconditional).double().tolist()))
        else:
            observed.append((math.nan,) * len(x))
        expected.append(_expected_flags(run, call, len(x)))
    return Flags(observed=tuple(observed), expected=tuple(expected), batch=batch)


def _expected_flags(run: Run, call: Call, rows: int) -> Numbers:
    """Flags of a doubled call; NaN for a call that holds one branch, which may be either."""
    if not run.reading.guided:
        return (0.0,) * rows
    if call.number not in run.reading.doubled_calls:
        return (math.nan,) * rows
    half = rows // 2
    first = run.subject.spec.guidance_layout == "uncond_first"
    return (float(first),) * half + (float(not first),) * (rows - half)


_Gather = Callable[[Run, frozenset[int]], Iterable[Panel]]
# What the other rules judge is no quantity over the steps of one run.
_GATHER: Mapping[str, _Gather] = MappingProxyType(
    {
        "FM202": _halves,
        **dict.fromkeys(("FM203", "FM204", "FM205", "FM207", "FM208"), _guidance),
        **dict.fromkeys(("FM301", "FM302", "FM304", "FM306", "FM307"), _told),
        **dict.fromkeys(("FM303", "FM305"), _grid),
        "FM308": _rows_apart,
        **dict.fromkeys(("FM501", "FM502"), _update),
        **dict.fromkeys(("FM503", "FM504", "FM505"), _path),
        "FM601": _last_update,
    }
)
