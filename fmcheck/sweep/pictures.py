"""The pictures of a sweep: what came out at every scale, every measure against the scale, the states on the way."""

import math
import textwrap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fmcheck.pictures import FONT, GREY, INK, LINES, MARKERS, PALETTE, SMALL, figure, save, style
from fmcheck.sweep.campaign import Sweep
from fmcheck.sweep.settings import Key
from fmcheck.sweep.summary import Estimate, Row

__all__ = ["grid_picture", "latents_picture", "measures_picture", "write_pictures"]

# Inches: one picture of the grid, the column of its prompts, its title, its margin; one panel of a plot.
_CELL, _LABEL, _HEAD, _EDGE, _PANEL = 1.25, 1.85, 0.7, 0.1, (3.1, 2.35)
_COLUMNS = 3
# More rows make a picture that nobody reads, and more pixels one that no viewer opens.
_ROWS_SHOWN, _LARGEST_CELL, _GAP = 12, 256, 0.04
_LABEL_WIDTH, _LABEL_LINES, _LINE = 26, 4, 0.14


def write_pictures(sweep: Sweep, folder: Path) -> list[Path]:
    """`grid-STEPS.png` for every number of steps, `measures.png`, and `latents.png` where states could be read.

    Raises:
        DeclarationError: matplotlib is missing, or the folder cannot be written.
    """
    with style():
        made = {f"grid-{steps}.png": grid_picture(sweep, steps) for steps in sweep.settings.steps}
        made |= {"measures.png": measures_picture(sweep), "latents.png": latents_picture(sweep)}
        return [save(picture, folder / name) for name, picture in made.items() if picture is not None]


def grid_picture(sweep: Sweep, steps: int) -> Any:
    """The pictures of the first seed: a row a prompt, a column a scale."""
    rows = [row for row in sweep.rows if row.steps == steps]
    prompts = sweep.settings.prompts[:_ROWS_SHOWN]
    columns = [_column(sweep, row) for row in rows]
    shape = next((column.shape[1:] for column in columns if column is not None), torch.Size((1, 1, 3)))
    height, width = shape[0], shape[1]
    gap = max(1, round(_GAP * width))
    whole = (len(prompts) * (height + gap) - gap, len(rows) * (width + gap) - gap, 3)
    sheet = torch.full(whole, 255, dtype=torch.uint8)
    ratio = height / width
    size = (_LABEL + len(rows) * _CELL + _EDGE, _HEAD + len(prompts) * _CELL * ratio + _EDGE)
    made, ((axis,),) = figure(*size)
    # Placed by hand: a layout that keeps the aspect would leave the labels of the prompts outside.
    made.set_layout_engine("none")
    share = (len(rows) * _CELL / size[0], len(prompts) * _CELL * ratio / size[1])
    axis.set_position((_LABEL / size[0], _EDGE / size[1], *share))
    for j, (row, column) in enumerate(zip(rows, columns, strict=True)):
        left = j * (width + gap)
        for i in range(len(prompts)):
            top = i * (height + gap)
            if column is None or row.error or not _finite(sweep, row, i):
                sheet[top : top + height, left : left + width] = 235
                said = "raised" if row.error else "not finite"
                axis.text(left + width / 2, top + height / 2, said, ha="center", va="center", fontsize=SMALL, color=INK)
            else:
                sheet[top : top + height, left : left + width] = column[i]
    axis.imshow(sheet.numpy(), interpolation="nearest" if width * _CELL < 64 else "antialiased")
    axis.set_xticks([j * (width + gap) + width / 2 for j in range(len(rows))], [_heading(row) for row in rows])
    axis.set_yticks(
        [i * (height + gap) + height / 2 for i in range(len(prompts))], [_wrapped(p, _CELL * ratio) for p in prompts]
    )
    axis.tick_params(length=0, labelsize=FONT, top=False, labeltop=True, labelbottom=False)
    axis.tick_params(axis="y", labelsize=SMALL)
    axis.grid(visible=False)
    axis.spines[:].set_visible(False)
    more = len(sweep.settings.prompts) - len(prompts)
    left_out = f", {more} more prompts not shown" if more else ""
    title = f"{sweep.subject.name}, {steps} steps, seed {sweep.settings.case.seed}{left_out}"
    axis.set_title(f"{title}\nguidance scale", fontsize=FONT)
    return made


def _column(sweep: Sweep, row: Row) -> Tensor | None:
    """`[prompts, h, w, 3]` uint8 of the first seed at one setting; None where there are none."""
    low, high = sweep.subject.spec.image_range
    keys = [Key(row.steps, row.scale, 0, batch) for batch in range(len(sweep.settings.batches))]
    parts = [sweep.store.pixels(key, low, high) for key in keys]
    found = [part for part in parts if part is not None]
    if row.error or len(found) != len(parts):
        return None
    images = torch.cat(found)[:_ROWS_SHOWN]
    images = images[:, :3] if images.shape[1] >= 3 else images[:, :1].expand(-1, 3, -1, -1)
    longest = max(images.shape[-2:])
    if longest > _LARGEST_CELL:
        size = [round(side * _LARGEST_CELL / longest) for side in images.shape[-2:]]
        images = torch.nn.functional.interpolate(images.float(), size, mode="area").round().to(torch.uint8)
    return images.permute(0, 2, 3, 1)


def _finite(sweep: Sweep, row: Row, prompt: int) -> bool:
    batch, place = divmod(prompt, sweep.settings.batch)
    entry = sweep.store.entries.get(Key(row.steps, row.scale, 0, batch))
    return entry is not None and entry.finite[place]


def _heading(row: Row) -> str:
    return f"{row.scale:g} (off)" if row.off else f"{row.scale:g}"


def _wrapped(prompt: str, height: float) -> str:
    """A prompt in as many lines as fit beside a picture of so many inches."""
    lines, fit = textwrap.wrap(prompt, _LABEL_WIDTH) or [""], max(1, min(_LABEL_LINES, int(height / _LINE)))
    if len(lines) > fit:
        lines = [*lines[: fit - 1], f"{lines[fit - 1][: _LABEL_WIDTH - 2]} …"]
    return "\n".join(lines)


def _measures(sweep: Sweep) -> Iterator[tuple[str, Callable[[Row], Estimate | float | None]]]:
    """Label with unit, and how a row answers."""
    names = list(dict.fromkeys(name for row in sweep.rows for name in row.scores))
    judge = sweep.subject.judge
    headline = judge.headline if judge is not None else None
    for name in sorted(names, key=lambda name: name != headline):
        yield f"score: {name}", lambda row, name=name: row.scores.get(name)  # type: ignore[misc]
    yield "distance to unguided\n(RMS, share of range)", lambda row: row.distance
    yield "values at the ends of\nthe image range (share)", lambda row: row.clipped
    yield "colour: mean of max - min\nof R, G, B (share of range)", lambda row: row.colour
    yield "state RMS, last / first", lambda row: row.growth
    yield "time of one call (s)", lambda row: row.seconds


def measures_picture(sweep: Sweep) -> Any:
    """A panel a measure against the guidance scale, a line a number of steps, bars of one standard error."""
    panels = [(label, of) for label, of in _measures(sweep) if any(of(row) is not None for row in sweep.rows)]
    columns = min(_COLUMNS, max(1, len(panels)))
    lines = math.ceil(len(panels) / columns) or 1
    made, axes = figure(_PANEL[0] * columns, _PANEL[1] * lines + 0.6, lines, columns)
    for axis, (label, of) in zip(axes.flat, panels, strict=False):
        for number, steps in enumerate(sweep.settings.steps):
            _line(axis, [row for row in sweep.rows if row.steps == steps], of, number, f"{steps} steps")
        axis.set_ylabel(label)
        axis.set_xlabel("guidance scale")
        axis.set_xticks(*_ticks(sorted({row.scale for row in sweep.rows})))
    for axis in list(axes.flat)[len(panels) :]:
        axis.set_visible(False)
    settings = sweep.settings
    made.suptitle(
        f"{sweep.subject.name}: {len(settings.prompts)} prompts, {settings.seeds} seeds; bars: ± 1 standard error over "
        "prompts",
        fontsize=FONT,
    )
    handles, labels = axes.flat[0].get_legend_handles_labels()
    made.legend(handles, labels, loc="outside lower center", ncols=min(6, max(1, len(labels))))
    return made


def _ticks(scales: Sequence[float]) -> tuple[list[float], list[str]]:
    """The scales themselves; labels that would touch their left neighbour are left out."""
    reach = (scales[-1] - scales[0]) or 1.0
    labels, last = [], -math.inf
    for scale in scales:
        shown = (scale - last) / reach >= 0.09
        labels.append(f"{scale:g}" if shown else "")
        last = scale if shown else last
    return list(scales), labels


def _line(axis: Any, rows: list[Row], of: Callable[[Row], Estimate | float | None], number: int, label: str) -> None:
    """One line through the rows that have this measure, in the order of their scales."""
    found = sorted(((row.scale, of(row)) for row in rows if of(row) is not None), key=lambda point: point[0])
    values = [value.mean if isinstance(value, Estimate) else value for _, value in found]
    errors = [value.error if isinstance(value, Estimate) else None for _, value in found]
    bars = None if None in errors else errors
    axis.errorbar([scale for scale, _ in found], values, yerr=bars, capsize=2.5, label=label, **_look(number))


def _look(number: int) -> dict[str, str]:
    """Colour, marker and dashes of a line, so that any one of them tells it from its neighbours."""
    return {
        "color": PALETTE[number % len(PALETTE)],
        "marker": MARKERS[number % len(MARKERS)],
        "linestyle": LINES[number % len(LINES)],
    }


def latents_picture(sweep: Sweep) -> Any | None:
    """RMS of the state before the first step and after every step: a panel a number of steps, a line a scale."""
    known = [steps for steps in sweep.settings.steps if any(row.norms for row in sweep.rows if row.steps == steps)]
    if not known:
        return None
    columns = min(_COLUMNS, len(known))
    lines = math.ceil(len(known) / columns)
    width = max(_PANEL[0] * columns, 4.6)
    made, axes = figure(width, (_PANEL[1] + 0.3) * lines + 0.7, lines, columns, sharey=True)
    scales = list(dict.fromkeys(row.scale for row in sweep.rows))
    for axis, steps in zip(axes.flat, known, strict=False):
        for row in sweep.rows:
            if row.steps == steps and row.norms:
                look = _look(scales.index(row.scale)) | ({"color": GREY} if row.off else {})
                axis.plot(range(len(row.norms)), row.norms, label=_heading(row), **look)
        axis.set_title(f"{steps} steps")
        axis.set_xlabel("after step")
        axis.xaxis.get_major_locator().set_params(integer=True)
    for axis in axes[:, 0]:
        axis.set_ylabel("RMS of the state")
    for axis in list(axes.flat)[len(known) :]:
        axis.set_visible(False)
    made.suptitle(f"{sweep.subject.name}: size of the state on its way, mean over pictures", fontsize=FONT)
    handles, labels = max((axis.get_legend_handles_labels() for axis in axes.flat), key=lambda found: len(found[1]))
    made.legend(
        handles,
        labels,
        title="guidance scale",
        title_fontsize=SMALL,
        loc="outside lower center",
        ncols=min(6, len(labels)),
    )
    return made
