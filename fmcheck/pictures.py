"""Style of every picture: palette, font sizes, how a figure is made and written. Needs the extra `fmcheck[plots]`."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fmcheck.errors import DeclarationError
from fmcheck.files import replace_file

__all__ = [
    "FONT",
    "GREY",
    "INK",
    "LINES",
    "MARKERS",
    "PALETTE",
    "SMALL",
    "TITLE",
    "figure",
    "png_of",
    "require",
    "save",
    "style",
]

# Okabe and Ito's colours, told apart with every kind of colour blindness and on grey paper by the markers below.
# Black and the light yellow of their set are left out: text is black, and yellow lines vanish on white.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P")
LINES = ("-", "--", "-.", ":", "-", "--")
INK, GREY = "#222222", "#8A8A8A"

# Points, for pictures that are read at 100%.
SMALL, FONT, TITLE = 8, 9, 11
_DPI = 150
_STYLE: Any = {
    "font.size": FONT,
    "axes.titlesize": FONT,
    "axes.labelsize": FONT,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "legend.fontsize": SMALL,
    "figure.titlesize": TITLE,
    "text.color": INK,
    # A dollar sign in a prompt or an error would begin a formula.
    "text.parse_math": False,
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
    "legend.frameon": False,
}


def require() -> None:
    """Ask for matplotlib before anything costly is done.

    Raises:
        DeclarationError: it is not installed; says what to install.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise DeclarationError(
            f"pictures need matplotlib, which is not installed ({error}); pip install 'fmcheck[plots]'"
        ) from error


@contextmanager
def style() -> Iterator[None]:
    """The settings of matplotlib while a picture is drawn: titles, legends and lines read them when they are made.

    Raises:
        DeclarationError: matplotlib is not installed.
    """
    require()
    import matplotlib

    with matplotlib.rc_context(_STYLE):
        yield


def figure(width: float, height: float, rows: int = 1, columns: int = 1, **grid: Any) -> tuple[Any, Any]:
    """A figure of `width` x `height` inches and its axes, an array `[rows, columns]` whatever their number.

    Draw within :func:`style`, too.
    Agg through `Figure`, never pyplot: nothing of the user's process changes, neither backend nor settings.

    Args:
        grid: further arguments of `Figure.subplots`, such as `sharex` or `height_ratios`.

    Raises:
        DeclarationError: matplotlib is not installed.
    """
    require()
    from matplotlib.figure import Figure

    with style():
        made = Figure(figsize=(width, height), dpi=_DPI, layout="constrained")
        axes = made.subplots(rows, columns, squeeze=False, **grid)
    return made, axes


def png_of(made: Any) -> bytes:
    """A figure as the contents of a PNG file."""
    out = io.BytesIO()
    with style():
        # Without the version of matplotlib in it, equal numbers give equal files.
        made.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()


def save(made: Any, path: Path) -> Path:
    """Write a figure as PNG, in the place of an earlier one only when it is whole. Returns the path.

    Raises:
        DeclarationError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, png_of(made))
    except OSError as error:
        raise DeclarationError(f"{path}: the picture cannot be written ({error.strerror or error})") from error
    return path
