"""The picture of a finding: what the rule says, the quantity that it judges, and how far beyond its bound."""

import math
import textwrap
from collections.abc import Callable
from typing import Any

from fmcheck.pictures import FONT, GREY, INK, PALETTE, SMALL, TITLE, figure
from fmcheck.plots.canvas import Errors, expected, mark, observed, powers_of_ten, step_axis, within_bound
from fmcheck.plots.finding import Bar, Page
from fmcheck.plots.quantity import Flags, Panel

__all__ = ["draw_finding"]

_WIDTH, _COLUMNS = 10.0, 122
_LINE, _LARGE, _BAR = 0.165, 0.27, 0.42


def draw_finding(page: Page) -> Any:
    """Text on top, the quantity over steps below, used against allowed at the bottom."""
    text = _lines(page)
    tall = [sum(_LARGE if size > FONT else _LINE for _, size, _, _ in text) + 0.4]
    panels = bool(page.panels or page.flags)
    if panels:
        tall.append(3.0)
    if page.bars:
        tall.append(0.75 + _BAR * len(page.bars))
    made, axes = figure(_WIDTH, sum(tall) + 0.1, len(tall), 2, height_ratios=tall)
    _write(made, axes[0], text, sum(tall) + 0.1)
    if page.flags is not None:
        _flags(axes[1], page.flags)
    elif panels:
        for panel, shown in zip(axes[1], [*page.panels, None][:2], strict=True):
            _panel(panel, shown)
    if page.bars:
        below = axes[-1, 0].get_gridspec()
        for axis in axes[-1]:
            axis.remove()
        _bars(made.add_subplot(below[-1, :]), page.bars)
    return made


def _lines(page: Page) -> list[tuple[str, float, str, str]]:
    """Text, size, colour and weight of every line."""
    lines = [(f"{page.code} {page.name}  ({page.severity})", float(TITLE), INK, "bold")]
    colour = PALETTE[1] if page.severity == "error" else INK
    parts = (
        ("found", page.message, colour),
        ("must hold", page.must_hold, INK),
        ("where", page.where, INK),
        ("in all", f"{page.count} findings in {', '.join(page.places)}" if page.count > 1 else "", INK),
        ("likely cause", page.diagnosis, PALETTE[0]),
        ("bound", "" if page.bars else "none: the property holds exactly or not at all", GREY),
        ("drawn", page.shown, GREY),
    )
    for name, text, tone in parts:
        if text:
            wrapped = textwrap.wrap(
                f"{name}: {text.replace('`', '')}", _COLUMNS, subsequent_indent="    ", break_on_hyphens=False
            )
            lines += [(line, float(FONT), tone, "normal") for line in wrapped]
    return lines


def _write(made: Any, spared: Any, lines: list[tuple[str, float, str, str]], tall: float) -> None:
    """Over the whole width of the figure, on the place that two empty axes keep free."""
    for axis in spared:
        axis.set_axis_off()
    done = 0.08
    for text, size, colour, weight in lines:
        look = {"fontsize": size, "color": colour, "weight": weight, "va": "top", "parse_math": False}
        made.text(0.012, 1 - done / tall, text, **look).set_in_layout(False)
        done += _LARGE if size > FONT else _LINE


def _panel(axes: Any, panel: Panel | None) -> None:
    if panel is None:
        axes.set_axis_off()
        return
    axes.set_title(panel.title)
    axes.set_ylabel(panel.y_label)
    if panel.is_error:
        within_bound(axes, [Errors(panel.error_of, panel.x, panel.observed, panel.expected)])
    else:
        expected(axes, panel.x, panel.expected, panel.expected_label)
        if panel.low:
            axes.vlines(panel.x, panel.low, panel.high, color=PALETTE[0], linewidth=1.2, label="range of the rows")
        observed(axes, panel.x, panel.observed, panel.observed_label)
        mark(axes, [panel.x[i] for i in panel.marked], [panel.observed[i] for i in panel.marked], "reported")
        _room(axes, [*panel.expected, *panel.observed, *panel.low, *panel.high])
    step_axis(axes, math.ceil(max(panel.x, default=0.0)), panel.x_label)
    axes.legend(loc="best")


def _room(axes: Any, values: list[float]) -> None:
    """Air around the points, also where all of them are alike."""
    found = [value for value in values if math.isfinite(value)]
    if found:
        low, high = min(found), max(found)
        air = 0.18 * (high - low) or 0.1 * abs(high) or 1.0
        axes.set_ylim(low - air, high + air)


def _flags(axes: Any, flags: Flags) -> None:
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch

    width = max(len(row) for row in flags.observed)
    colours = ListedColormap(["#FFFFFF", PALETTE[0]]).with_extremes(bad="#DDDDDD")
    for axis, values, title in ((axes[0], flags.expected, "Expected"), (axes[1], flags.observed, "Observed")):
        table = [[*row, *([math.nan] * (width - len(row)))] for row in values]
        axis.pcolormesh(_masked(table), cmap=colours, vmin=0, vmax=1, edgecolors=GREY, linewidth=0.6)
        axis.set_title(f"{title}: null indicator, unconditional rows")
        axis.set_xlabel("row of the call")
        axis.set_ylabel("call of the network")
        _ticks(axis.set_xticks, width)
        _ticks(axis.set_yticks, len(values))
        axis.invert_yaxis()
        axis.grid(visible=False)
        axis.axvline(flags.batch, color=INK, linewidth=1.4)
    key = [("#FFFFFF", "conditional"), (PALETTE[0], "unconditional"), ("#DDDDDD", "no flag, or either")]
    handles = [Patch(facecolor=colour, edgecolor=GREY, label=name) for colour, name in key]
    axes[1].legend(handles=handles, loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _ticks(place: Callable[[list[float], list[str]], Any], count: int) -> None:
    """Numbers in the middle of the cells, at most sixteen."""
    shown = range(0, count, math.ceil(count / 16))
    place([k + 0.5 for k in shown], [str(k) for k in shown])


def _masked(table: list[list[float]]) -> Any:
    import numpy as np

    return np.ma.masked_invalid(np.array(table))


def _bars(axes: Any, bars: tuple[Bar, ...]) -> None:
    place = list(range(len(bars)))
    sizes = [size for bar in bars for size in (bar.used, bar.allowed) if size > 0 and math.isfinite(size)]
    low, high = min(sizes, default=1e-16) / 10, max(sizes, default=1.0)
    used = [bar.used if math.isfinite(bar.used) else high * 10 for bar in bars]
    axes.barh(place, [u - low for u in used], left=low, height=0.38, color=PALETTE[0], label="used")
    allowed = [(p, bar.allowed) for p, bar in zip(place, bars, strict=True) if bar.allowed > 0]
    look = {"linestyle": "none", "marker": "|", "markersize": 16, "markeredgewidth": 2.5, "color": PALETTE[1]}
    axes.plot([a for _, a in allowed], [p for p, _ in allowed], label="allowed", **look)
    axes.set_xscale("log")
    powers_of_ten(axes.xaxis)
    axes.set_xlim(low, (high / low) ** 0.3 * high)
    axes.set_ylim(len(bars) - 0.55, -0.8)
    axes.set_yticks([])
    axes.set_xlabel("error, and what rounding allows")
    for p, bar, size in zip(place, bars, used, strict=True):
        times = f"{bar.used / bar.allowed:.2g} times" if bar.allowed > 0 else "allowed: 0"
        axes.annotate(times, (size, p), xytext=(4, 0), textcoords="offset points", va="center", fontsize=SMALL)
        # Above the bar: beside it a long name would take the room of the panels.
        label = textwrap.shorten(bar.label, 60, placeholder=" …")
        axes.annotate(label, (low, p - 0.22), xytext=(2, 1), textcoords="offset points", va="bottom", fontsize=SMALL)
    axes.legend(loc="lower right", ncols=2, bbox_to_anchor=(1.0, 1.0), borderaxespad=0.1)
