"""How the pictures of a run are drawn: what expected, observed and deviating look like in all of them."""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fmcheck.pictures import INK, PALETTE, SMALL, TITLE, figure
from fmcheck.plan import Run

__all__ = [
    "Errors",
    "caption",
    "expected",
    "mark",
    "observed",
    "powers_of_ten",
    "rows",
    "say",
    "sheet",
    "step_axis",
    "within_bound",
]

_OBSERVED, _DEVIATES = PALETTE[0], PALETTE[1]


def sheet(title: str, under: str, width: float, height: float, rows: int = 1, columns: int = 1, **grid: Any) -> Any:
    """A figure with a title and a line under it, and its axes."""
    made, axes = figure(width, height, rows, columns, **grid)
    made.suptitle(f"{title}\n{textwrap.fill(under, int(12 * width))}", x=0.01, ha="left", fontsize=TITLE - 1)
    return made, axes


def caption(run: Run) -> str:
    """The run in one line."""
    case = run.case
    scale = f"guidance {case.guidance_scale:g}"
    count = f"{case.num_steps} step{'s' if case.num_steps != 1 else ''}"
    size = f"batch {case.batch}, {case.height}x{case.width}"
    ended = f"; {run.failure}" if run.failure else ""
    return f"{run.subject.name}, run {run.name}: {count}, {scale}, {size}, seed {case.seed}, {case.dtype}{ended}"


def expected(axes: Any, x: Sequence[float], y: Sequence[float], label: str = "expected", **style: Any) -> None:
    """Rings on a dashed line, under what was observed."""
    look = {
        "color": INK,
        "linestyle": "--",
        "linewidth": 1.0,
        "marker": "o",
        "markersize": 8,
        "markerfacecolor": "none",
    }
    axes.plot(x, _drawable(y), label=label, zorder=2, **{**look, **style})


def observed(axes: Any, x: Sequence[float], y: Sequence[float], label: str = "observed", **style: Any) -> None:
    """Filled dots."""
    look = {"color": _OBSERVED, "marker": "o", "markersize": 4, "linestyle": "none"}
    axes.plot(x, _drawable(y), label=label, zorder=3, **{**look, **style})


def rows(axes: Any, x: Sequence[float], values: Sequence[Sequence[float]], color: str, label: str) -> None:
    """One light line a batch row; `values` is `[position][row]`. Positions without values are left out."""
    places = [(place, row) for place, row in zip(x, values, strict=True) if row]
    for row in range(min((len(value) for _, value in places), default=0)):
        y = _drawable([value[row] for _, value in places])
        axes.plot(
            [place for place, _ in places],
            y,
            color=color,
            alpha=0.45,
            linewidth=0.8,
            zorder=1,
            label=label if row == 0 else None,
        )


def mark(axes: Any, x: Sequence[float], y: Sequence[float], label: str = "deviates") -> None:
    """Squares around what deviates."""
    if len(x):
        look = {"marker": "s", "markersize": 11, "markerfacecolor": "none", "markeredgewidth": 1.6, "color": _DEVIATES}
        axes.plot(x, _drawable(y), linestyle="none", label=label, zorder=4, **look)


@dataclass(frozen=True)
class Errors:
    """Errors of one kind and their bounds, at places on the x axis."""

    name: str
    x: Sequence[float]
    used: Sequence[float]
    allowed: Sequence[float]
    color: str = _OBSERVED
    marker: str = "o"


def within_bound(axes: Any, kinds: Sequence[Errors]) -> None:
    """Errors and their bounds on a log axis; zero is drawn at the lower end, and what is beyond its bound is marked."""
    found = [e for kind in kinds for e in (*kind.used, *kind.allowed) if e > 0 and math.isfinite(e)]
    floor = 10.0 ** math.floor(math.log10(min(found)) - 1) if found else 1e-17
    axes.set_yscale("log")
    powers_of_ten(axes.yaxis)
    beyond: list[tuple[float, float]] = []
    for kind in kinds:
        shown = [max(e, floor) if not math.isnan(e) else e for e in kind.used]
        observed(axes, kind.x, shown, label=f"error of the {kind.name}", color=kind.color, marker=kind.marker)
        look = {"color": kind.color, "marker": "_", "markersize": 16, "markeredgewidth": 1.6, "linestyle": "none"}
        axes.plot(kind.x, _drawable(kind.allowed), label=f"allowed for the {kind.name}", zorder=2, **look)
        over = [used > allowed for used, allowed in zip(kind.used, kind.allowed, strict=True)]
        beyond += [(x, y) for x, y, far in zip(kind.x, shown, over, strict=True) if far]
    mark(axes, [x for x, _ in beyond], [y for _, y in beyond], "beyond what is allowed")
    if any(e == 0 for kind in kinds for e in kind.used):
        axes.set_ylabel(f"{axes.get_ylabel()} (0 is drawn at {floor:.0e})")
    top = max(found, default=1.0)
    # Room for the legend above the points.
    axes.set_ylim(floor / 2, top * (top / floor) ** 0.55)


def powers_of_ten(axis: Any) -> None:
    """Plain labels on a log axis: matplotlib's own are formulas, which no text of our pictures is."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0e}"))
    axis.set_minor_formatter(NullFormatter())


def step_axis(axes: Any, count: int, label: str = "step") -> None:
    """Whole steps from 0 to `count`."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(nbins=12, integer=True))
    axes.set_xlim(-0.5, count + 0.5)
    axes.set_xlabel(label)


def say(axes: Any, text: str, x: float = 0.5, y: float = 0.5, width: int = 46, **style: Any) -> None:
    """A sentence inside of an axes, in its own coordinates."""
    look = {"ha": "center", "va": "center", "fontsize": SMALL, "color": INK}
    axes.text(x, y, textwrap.fill(text, width), transform=axes.transAxes, **{**look, **style})


def _drawable(values: Sequence[float]) -> list[float]:
    """Infinite values as gaps: an axis has no place for them."""
    return [value if math.isfinite(value) else math.nan for value in values]
