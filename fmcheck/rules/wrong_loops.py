"""Ways to write a sampling loop wrongly: each leads elsewhere on a field whose velocity is known."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from fmcheck.flow import evaluation_times, from_argument, shift_sigma, time_edges, to_argument
from fmcheck.flow.exact import ExactField
from fmcheck.record.reading import Reading
from fmcheck.rules.fm2_explain import guidance_mistakes
from fmcheck.rules.fm3_explain import wrong_grids
from fmcheck.spec import FlowSpec

__all__ = ["Loop", "declared_loop", "wrong_loops"]


@dataclass(frozen=True)
class Loop:
    """One way to write a loop.

    Attributes:
        times: of the evaluations, `[K, stages]`.
        dt: of the steps, `[K]`.
        cond, uncond: coefficients of the two velocities.
        solver: `euler`, `midpoint` or `heun`.
        moves: whether the second stage is evaluated at a state of its own.
        memory: share of the velocity of the step before that is taken away again, as multistep methods do.
        damping: rate at which the state shrinks beside the velocity.
        turn: what becomes of the velocity before it is used.
        hold: what becomes of the state after a step, as rounding to a short dtype.
    """

    text: str
    times: Tensor
    dt: Tensor
    cond: float
    uncond: float
    solver: str
    moves: bool = True
    memory: float = 0.0
    damping: float = 0.0
    turn: Callable[[Tensor], Tensor] = lambda v: v
    hold: Callable[[Tensor], Tensor] = lambda x: x

    def end(self, field: ExactField, x: Tensor) -> Tensor:
        """The state that this loop leaves."""
        x, before = self.hold(x), None
        for times, dt in zip(self.times, self.dt, strict=True):
            v = self._velocity(field, x, times[0])
            if self.solver == "midpoint":
                v = self._velocity(field, x + dt / 2 * v if self.moves else x, times[1])
            elif self.solver == "heun":
                v = (v + self._velocity(field, x + dt * v if self.moves else x, times[1])) / 2
            used = v if before is None else (1 + self.memory) * v - self.memory * before
            x, before = self.hold(x + dt * (used - self.damping * x)), v
        return x

    def _velocity(self, field: ExactField, x: Tensor, t: Tensor) -> Tensor:
        rows = torch.zeros(len(x), dtype=torch.bool)
        v = self.cond * field.velocity(x, t, rows)
        return self.turn(v + self.uncond * field.velocity(x, t, ~rows) if self.uncond else v)


def declared_loop(reading: Reading) -> Loop:
    """The loop that the spec of a reading declares."""
    weight, spec = reading.weight, reading.spec
    return Loop("", reading.evaluation_times, reading.steps_dt, 1 + weight, -weight, spec.solver)


def _on_grid(loop: Loop, edges: Tensor, spec: FlowSpec, text: str) -> Loop:
    return replace(loop, text=text, times=evaluation_times(edges, spec), dt=edges.diff())


def wrong_loops(reading: Reading) -> Iterator[Loop]:
    """Known mistakes, one at a time; of two that come to the same the better known one first."""
    loop = declared_loop(reading)
    yield from _wrong_updates(loop)
    yield from _wrong_grids(loop, reading)
    yield from _wrong_steps(loop, reading)
    yield from _wrong_times(loop, reading)
    yield from _wrong_guidance(loop, reading)


def _wrong_grids(loop: Loop, reading: Reading) -> Iterator[Loop]:
    spec, steps = reading.spec, reading.case.num_steps
    for shift in (spec.grid_shift, 1 / spec.grid_shift, 3.0, 1 / 3.0):
        if shift != 1:
            again = 1 - shift_sigma(1 - reading.edges, shift)
            yield _on_grid(loop, again, spec, f"the grid is shifted once more, by {shift:.4g}")
    if spec.grid == "shifted" and spec.grid_shift != 1:
        text = f"the shift is applied in the other direction: 1 / {spec.grid_shift:g}"
        yield _on_grid(loop, time_edges(steps, replace(spec, grid_shift=1 / spec.grid_shift)), spec, text)
    for other, text in wrong_grids(spec):
        if other != spec:
            yield _on_grid(loop, time_edges(steps, other), spec, text)
    for count, text in ((steps - 1, "one step too few"), (steps + 1, "one step too many")):
        if count > 0 and spec.grid != "declared":  # whose edges are known for one number of steps
            yield _on_grid(loop, time_edges(count, spec), spec, f"the grid has {text}: {count} for {steps}")
    yield _on_grid(loop, 1 - reading.edges.flip(0), spec, "the grid is mirrored: its steps are in reversed order")
    yield _on_grid(loop, reading.edges.square(), spec, "the times are squared")


def _wrong_steps(loop: Loop, reading: Reading) -> Iterator[Loop]:
    dt, times, steps = loop.dt, loop.times, len(loop.dt)
    if steps > 1:
        yield replace(loop, text="the last step is left out", times=times[:-1], dt=dt[:-1])
        yield replace(loop, text="the first step is left out", times=times[1:], dt=dt[1:])
        yield replace(loop, text="every step has the length of the next one", dt=torch.cat([dt[1:], dt[-1:]]))
        yield replace(loop, text="every step has the length of the one before", dt=torch.cat([dt[:1], dt[:-1]]))
        between = torch.cat([times[1:, 0] - times[:-1, 0], 1 - times[-1:, 0]])
        yield replace(
            loop, text="the steps lead from one evaluation time to the next, not from edge to edge", dt=between
        )
    for end, name in ((-1, "last"), (0, "first")):
        again = torch.cat([times, times[-1:]]) if end else torch.cat([times[:1], times])
        lengths = torch.cat([dt, dt[-1:]]) if end else torch.cat([dt[:1], dt])
        yield replace(loop, text=f"the {name} step is made twice", times=again, dt=lengths)
    yield replace(loop, text="every step has the length 1 / K", dt=torch.full_like(dt, 1 / steps))
    yield replace(loop, text="every step is made backwards", dt=-dt)
    yield replace(loop, text="every step is K / (K + 1) as long as declared", dt=steps / (steps + 1) * dt)
    for k, name in ((0, "first"), (steps - 1, "last")):
        back = dt.clone()
        back[k] = -back[k]
        yield replace(loop, text=f"the {name} step is made backwards", dt=back)


def _wrong_times(loop: Loop, reading: Reading) -> Iterator[Loop]:
    edges = reading.edges
    low, high = edges[:-1, None], edges[1:, None]
    middle = (low + high) / 2
    points = {"left edge": low, "right edge": high, "midpoint": middle}
    for name, point in points.items():
        times = point.expand(-1, loop.times.shape[1])
        yield replace(loop, text=f"every evaluation of a step is made at its {name}", times=times)
    logit = (torch.logit(low.clamp(1e-12, 1 - 1e-12)) + torch.logit(high.clamp(1e-12, 1 - 1e-12))) / 2
    yield replace(
        loop, text="evaluated at the midpoint of the quantiles", times=torch.sigmoid(logit).expand_as(loop.times)
    )
    if len(edges) > 2:
        following = torch.cat([loop.times[1:], loop.times[-1:]])
        before = torch.cat([loop.times[:1], loop.times[:-1]])
        yield replace(loop, text="evaluated at the time of the next step", times=following)
        yield replace(loop, text="evaluated at the time of the step before", times=before)
    yield replace(loop, text="evaluated at 1 - t", times=1 - loop.times)
    for dtype in (torch.bfloat16, torch.float16):
        name = str(dtype).removeprefix("torch.")
        rounded = loop.times.to(dtype).to(loop.times.dtype)
        yield replace(loop, text=f"the evaluation times are rounded to {name}", times=rounded)
        told = from_argument(to_argument(loop.times, reading.spec).to(dtype), reading.spec)
        yield replace(loop, text=f"the time argument is rounded to {name}", times=told)
    for value in (0.0, 0.5, 1.0):
        yield replace(loop, text=f"evaluated at t = {value:g} in every step", times=torch.full_like(loop.times, value))


def _wrong_guidance(loop: Loop, reading: Reading) -> Iterator[Loop]:
    w = reading.weight
    if not w:
        return
    for weight, text in guidance_mistakes(w):
        yield replace(loop, text=text, cond=1 + weight, uncond=-weight)
    unbalanced = (
        (1 + w, w, "v_uncond is added, not subtracted"),
        (1 + w, 0.0, "v_uncond is left out"),
        (w, -w, "v_cond itself is left out: w (c - u)"),
    )
    for cond, uncond, text in unbalanced:
        yield replace(loop, text=text, cond=cond, uncond=uncond)


def _through(dtype: torch.dtype, x: Tensor) -> Tensor:
    return x.to(dtype).to(x.dtype)


def _rolled(axis: int, v: Tensor) -> Tensor:
    return v.roll(1, axis) if axis < v.dim() else v


def _flipped(axis: int, v: Tensor) -> Tensor:
    return v.flip(axis) if axis < v.dim() else v


def _wrong_updates(loop: Loop) -> Iterator[Loop]:
    for dtype in (torch.bfloat16, torch.float16):
        name = str(dtype).removeprefix("torch.")
        yield replace(loop, text=f"the state is held in {name}", hold=partial(_through, dtype))
    yield replace(loop, text="a two-step method (Adams-Bashforth): 1.5 v - 0.5 v of the step before", memory=0.5)
    yield replace(loop, text="the velocity is averaged with that of the step before", memory=-0.5)
    for axis, name in enumerate(("rows", "channels", "lines", "columns")):
        yield replace(loop, text=f"the velocity is moved on by one along the {name}", turn=partial(_rolled, axis))
        yield replace(loop, text=f"the velocity is reversed along the {name}", turn=partial(_flipped, axis))
    if loop.solver != "euler":
        first = loop.times[:, :1]
        stale = first.expand_as(loop.times)
        yield replace(loop, text=f"Euler steps where {loop.solver} is declared", solver="euler")
        yield replace(loop, text="the second stage is told the time of the first", times=stale)
        yield replace(loop, text="the second stage is evaluated at the state of the first", moves=False)
        other = "heun" if loop.solver == "midpoint" else "midpoint"
        yield replace(loop, text=f"the steps of {other} where {loop.solver} is declared", solver=other)
