"""`velocities.png`: both branches, their angle, and the combination that moved the state."""

from typing import Any

from fmcheck.pictures import PALETTE
from fmcheck.plots.canvas import expected, observed, rows, say, sheet, step_axis
from fmcheck.plots.times import Numbers
from fmcheck.plots.velocities import Velocities

__all__ = ["draw_velocities"]


def draw_velocities(found: Velocities, title: str, under: str) -> Any:
    """Sizes of the branches, their angle, and the size of what moved the state against the formula."""
    made, axes = sheet(title, under, 12.5, 4.4, 1, 3)
    branches, angle, moved = axes[0]
    place = [float(i) for i in range(len(found.cond))]
    for values, color, marker, name in (
        (found.cond, PALETTE[0], "o", "conditional"),
        (found.uncond, PALETTE[2], "^", "unconditional"),
    ):
        _lines(branches, place, values, color, marker, name)
    branches.set_title("Both branches")
    branches.set_ylabel("root mean square of the velocity")
    _bottom(branches, [*found.cond, *found.uncond])
    _lines(angle, place, found.angle, PALETTE[3], "D", "angle")
    angle.set_title("Angle between the branches")
    angle.set_ylabel("degrees")
    _bottom(angle, found.angle)
    if not any(found.angle):
        say(angle, "the unconditional branch is not evaluated")
    _moved(moved, found)
    for panel in (branches, angle):
        step_axis(panel, len(place) - 1, "evaluation of the network")
        if panel.get_legend_handles_labels()[0]:
            panel.legend(loc="best")
    return made


def _moved(axes: Any, found: Velocities) -> None:
    axes.set_title(f"Combined velocity ({found.guidance})")
    axes.set_ylabel("root mean square of the velocity")
    if found.step:
        rows(axes, found.step, found.used, PALETTE[0], "one batch row")
        expected(axes, found.step, _means(found.declared), "(1 + w) c - w u")
        observed(axes, found.step, _means(found.used), "change of the state / dt")
        _bottom(axes, [*found.used, *found.declared])
        step_axis(axes, int(max(found.step)))
    else:
        place = [float(i) for i in range(len(found.combined))]
        _lines(axes, place, found.combined, PALETTE[0], "o", "(1 + w) c - w u")
        _bottom(axes, found.combined)
        step_axis(axes, len(place) - 1, "evaluation of the network")
        say(axes, f"what moved the state is not observed: {found.reason or 'no step is seen whole'}", 0.5, 0.03,
            va="bottom")  # fmt: skip
    axes.legend(loc="best")


def _lines(axes: Any, place: list[float], values: tuple[Numbers, ...], color: str, marker: str, name: str) -> None:
    """One light line a row, and their root mean square (of angles: the mean)."""
    seen = [(p, row) for p, row in zip(place, values, strict=True) if row]
    if not seen:
        return
    rows(axes, place, values, color, f"{name}, one row")
    means = _means([row for _, row in seen]) if name != "angle" else [sum(row) / len(row) for _, row in seen]
    label = f"{name}, {'mean' if name == 'angle' else 'all rows'}"
    observed(axes, [p for p, _ in seen], means, label, color=color, marker=marker, linestyle="-")


def _means(values: Any) -> list[float]:
    """Root mean square over all rows."""
    return [(sum(v * v for v in row) / len(row)) ** 0.5 for row in values]


def _bottom(axes: Any, values: Any) -> None:
    top = max((v for row in values for v in row if v == v and v != float("inf")), default=0.0)
    axes.set_ylim(0, 1.3 * top or 1.0)
