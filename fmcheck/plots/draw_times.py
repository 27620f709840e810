"""Pictures of time: `time_grid.png`, and what the network was told, named after the spec's time argument."""

import math
from typing import Any

from fmcheck.pictures import GREY, PALETTE
from fmcheck.plots.canvas import Errors, expected, mark, observed, say, sheet, step_axis, within_bound
from fmcheck.plots.times import Numbers, Steps, Told

__all__ = ["draw_time_grid", "draw_told"]


def draw_time_grid(steps: Steps, told: Told, curve: tuple[Numbers, Numbers], title: str, under: str) -> Any:
    """Times over the step, quantile against quantile, step sizes, and how far all of them are off."""
    made, axes = sheet(title, under, 10, 7.4, 2, 2)
    _over_steps(axes[0, 0], steps, told, curve)
    _quantiles(axes[0, 1], steps, told)
    _lengths(axes[1, 0], steps)
    _errors(axes[1, 1], steps, told)
    return made


def _over_steps(axes: Any, steps: Steps, told: Told, curve: tuple[Numbers, Numbers]) -> None:
    count = len(steps.lengths)
    if curve[0]:
        axes.plot([q * count for q in curve[0]], curve[1], color=GREY, linewidth=0.9, label="quantile function")
    expected(axes, range(count + 1), steps.edges, "declared edge", linestyle="none")
    if not steps.reason:
        observed(axes, range(len(steps.passed)), steps.passed, "edge the state passed")
    look = {"color": PALETTE[2], "marker": "^"}
    expected(axes, told.position, told.expected, "declared evaluation time", linestyle="none", **look)
    observed(axes, told.position, told.times, "time the network was told", **look)
    axes.set_title("Flow time over the steps")
    axes.set_ylabel("flow time t (0 source, 1 data)")
    step_axis(axes, max(count, len(steps.taken)))
    axes.legend(loc="best")


def _quantiles(axes: Any, steps: Steps, told: Told) -> None:
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.9, label="as declared")
    if not steps.reason:
        common = min(len(steps.edges), len(steps.passed))
        observed(axes, steps.edges[:common], steps.passed[:common], "edges", markersize=8, markerfacecolor="none")
    observed(axes, told.expected, told.times, "evaluation times", color=PALETTE[2], marker="^", markersize=5)
    axes.set_title("Quantile against quantile")
    axes.set_xlabel("declared flow time")
    axes.set_ylabel("observed flow time")
    axes.set_aspect("equal", adjustable="box")
    axes.legend(loc="best")


def _lengths(axes: Any, steps: Steps) -> None:
    count = len(steps.lengths)
    middle = [k + 0.5 for k in range(count)]
    axes.bar(middle, steps.lengths, width=0.7, color="#E4E4E4", edgecolor=GREY, label="declared")
    axes.set_title("Step sizes")
    axes.set_ylabel("dt in flow time")
    step_axis(axes, max(count, len(steps.taken)))
    if steps.reason:
        say(axes, f"no length observed: {steps.reason}", 0.5, 0.9, va="top")
    else:
        place = [k + 0.5 for k in range(len(steps.taken))]
        observed(axes, place, steps.taken, "recovered from the state")
        off = [k for k in range(min(count, len(place))) if _beyond(steps, k)]
        mark(axes, [place[k] for k in off], [steps.taken[k] for k in off])
        unread = [str(k) for k, length in enumerate(steps.taken) if math.isnan(length)]
        if unread:
            axes.set_xlabel(f"step (length not readable in {', '.join(unread[:8])})")
    axes.set_ylim(0, 1.3 * max([*steps.lengths, *(length for length in steps.taken if math.isfinite(length))]))
    axes.legend(loc="upper right", ncols=3)


def _beyond(steps: Steps, k: int) -> bool:
    return abs(steps.taken[k] - steps.lengths[k]) > steps.allowed[k]


def _errors(axes: Any, steps: Steps, told: Told) -> None:
    axes.set_title("Distance from the declaration, and what rounding allows")
    axes.set_ylabel("flow time")
    times = [abs(a - b) for a, b in zip(told.times, told.expected, strict=True)]
    errors = [Errors("time told", told.position, times, told.allowed, PALETTE[2], "^")]
    if not steps.reason:
        count = min(len(steps.lengths), len(steps.taken))
        lengths = [abs(steps.taken[k] - steps.lengths[k]) for k in range(count)]
        # Beside the times, which lie in the middle of their steps or at their start.
        place = [k + 0.7 for k in range(count)]
        errors.append(Errors("step size", place, lengths, steps.allowed[:count], PALETTE[0], "o"))
    within_bound(axes, errors)
    step_axis(axes, len(steps.lengths))
    axes.legend(loc="best")


def draw_told(told: Told, title: str, under: str) -> Any:
    """The time argument in the user's own units, and the log-SNR of the path at those times."""
    made, axes = sheet(title, under, 10, 4.4, 1, 2)
    left, right = axes[0]
    _argument(left, told)
    count = "" if told.made == told.declared else f"; {told.made} evaluations, declared {told.declared}"
    left.set_title(f"Time argument: {told.map}{count}")
    left.set_ylabel(f"{told.name} told to the network")
    wanted, found = told.log_snr(told.expected), told.log_snr(told.times)
    expected(right, told.position, wanted)
    observed(right, told.position, found)
    right.set_title(f"Log-SNR of the path, 2 ln(t / (1 - (1 - s) t)), s = {told.sigma_min:g}")
    right.set_ylabel("log-SNR (natural logarithm)")
    endless = [f"{p:g}" for p, v in zip(told.position, found, strict=True) if math.isinf(v)]
    for axis in axes[0]:
        step_axis(axis, math.ceil(max(told.position)))
        axis.legend(loc="best")
    if endless:
        right.set_xlabel(f"step (infinite at step {', '.join(endless)}, an end of the path)")
    return made


def _argument(axes: Any, told: Told) -> None:
    wanted, found = told.argument(told.expected), told.argument(told.times)
    expected(axes, told.position, wanted)
    low, high = told.argument(told.low), told.argument(told.high)
    if told.apart:
        axes.vlines(told.position, low, high, color=PALETTE[0], linewidth=1, label="range of the rows")
    observed(axes, told.position, found)
    mark(axes, [told.position[i] for i in told.beyond], [found[i] for i in told.beyond])
