"""One picture of every entry: same prompt, same noise."""

import io
import math
import textwrap
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from fmcheck.gallery.exhibit import Exhibit, Gallery
from fmcheck.gallery.files import write_files
from fmcheck.pictures import FONT, GREY, INK, PALETTE, SMALL, figure, png_of, style

__all__ = ["gallery_picture", "save_gallery"]

# Inches of a picture and of its two lines of caption; pictures a line; pixels of a picture in the file, a side.
_CELL, _CAPTION, _COLUMNS, _PIXELS = 1.42, 0.36, 6, 128
_TROUBLE_WIDTH, _COLOURS = 20, 256
# Letters of the heading an inch.
_LETTERS = 14


def gallery_picture(made: Gallery) -> Any:
    """A grid of the entries, each under its label and score.

    Raises:
        DeclarationError: matplotlib is not installed.
    """
    count, case = len(made.exhibits), made.case
    columns = min(_COLUMNS, count)
    rows, width = math.ceil(count / columns), columns * _CELL
    said = (
        f"{made.prompt}, seed {case.seed}",
        f"score: mean of {case.batch} prompts; then the rule that catches the defect; "
        "orange, *: the score does not see it",
    )
    lines = [line for text in said for line in textwrap.wrap(text, int(width * _LETTERS))]
    with style():
        figure_, axes = figure(width, rows * (_CELL + _CAPTION) + 0.2 * len(lines), rows, columns)
        for axis, exhibit in zip(axes.flat, made.exhibits, strict=False):
            _draw(axis, exhibit)
        for axis in list(axes.flat)[count:]:
            axis.set_visible(False)
        figure_.suptitle("\n".join(lines), fontsize=FONT)
    return figure_


def save_gallery(made: Gallery, path: Path) -> Path:
    """Draw and write the picture as PNG of 256 colours, which is a third of the size and looks the same.

    Raises:
        DeclarationError: matplotlib is not installed, or the file cannot be written.
    """
    whole, out = png_of(gallery_picture(made)), io.BytesIO()
    # A dependency of matplotlib.
    from PIL import Image

    with Image.open(io.BytesIO(whole)) as image:
        few = image.convert("RGB").quantize(_COLOURS, dither=Image.Dither.NONE)
        few.save(out, format="png", optimize=True)
    write_files({path.name: out.getvalue()}, path.parent)
    return path


def _draw(axis: Any, exhibit: Exhibit) -> None:
    axis.set_xticks([])
    axis.set_yticks([])
    axis.grid(visible=False)
    for spine in axis.spines.values():
        spine.set_visible(True)
        spine.set_color(GREY)
        spine.set_linewidth(0.5)
    axis.set_title(f"{exhibit.entry.label}\n{_second_line(exhibit)}", fontsize=SMALL, color=_ink(exhibit), pad=3)
    if exhibit.picture is None:
        axis.set_facecolor("#EFEFEF")
        axis.set_aspect("equal")
        axis.text(0.5, 0.5, _said(exhibit), ha="center", va="center", fontsize=SMALL - 1, transform=axis.transAxes)
        return
    height, width = exhibit.picture.shape[1:]
    shrink = max(1, round(max(height, width) / _PIXELS))
    small = F.avg_pool2d(exhibit.picture, shrink) if shrink > 1 else exhibit.picture
    axis.imshow((small.movedim(0, -1) * 255).round().to(torch.uint8).numpy(), interpolation="nearest")


def _said(exhibit: Exhibit) -> str:
    raised = exhibit.trouble.partition(" raised ")[2]
    text = f"raises: {raised}" if raised else exhibit.trouble
    lines = textwrap.wrap(text, _TROUBLE_WIDTH, break_long_words=True)[:6]
    return "\n".join(lines)


def _second_line(exhibit: Exhibit) -> str:
    score = exhibit.estimate("score")
    mark = "*" if exhibit.seen_by("score") is False else ""
    found = "no score" if score is None else f"score {score.mean:.2f}{mark}"
    return found if exhibit.caught is None else f"{found}, {exhibit.caught.code}"


def _ink(exhibit: Exhibit) -> str:
    """Defects that the score does not see stand out; the mark beside it is for those who do not see the colour."""
    return PALETTE[1] if exhibit.seen_by("score") is False else INK
