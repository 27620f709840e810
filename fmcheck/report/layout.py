"""Lines with a label and hanging text, at any width, with and without colour."""

import textwrap
from collections.abc import Iterable
from io import StringIO

from rich.console import Console
from rich.text import Text

__all__ = ["Page", "hanging", "plain"]

_NARROWEST = 60


class Page:
    """Styled lines for one width.

    Wrapped here and not by rich, so that a terminal, a log file and a pytest failure show the same lines, and so that
    a command is never broken in two.
    """

    def __init__(self, width: int) -> None:
        self.width = max(width, _NARROWEST)
        self.lines: list[Text] = []

    def line(self, *parts: str | tuple[str, str]) -> None:
        """One line that is not wrapped; each part is a text, or a text and its style."""
        self.lines.append(Text.assemble(*parts))

    def blank(self) -> None:
        self.lines.append(Text())

    def text(self, text: str, *, indent: int = 0, style: str = "", label: str = "", label_style: str = "") -> None:
        """A wrapped paragraph; what follows the label hangs under its first word."""
        first, *rest = hanging(text, width=self.width, indent=indent, label=label)
        line = Text(first, style)
        if label:
            line.stylize(label_style, indent, indent + len(label))
        self.lines.append(line)
        self.lines.extend(Text(other, style) for other in rest)

    def row(self, label: str, text: str, *, style: str = "") -> None:
        """A labelled row of a finding, wrapped."""
        self.text(text, indent=2, label=f"{label:<8}", label_style="dim", style=style)

    def command(self, label: str, command: str) -> None:
        """A labelled command, on one line whatever its length, so that it can be pasted."""
        self.line("  ", (f"{label:<8}", "dim"), " ", (command, "bold"))

    def show(self, console: Console) -> None:
        for line in self.lines:
            console.print(line, soft_wrap=True, highlight=False)


def hanging(text: str, *, width: int, indent: int = 0, label: str = "") -> list[str]:
    """`text` wrapped to `width`, the first line led by `label`; never empty."""
    lead = " " * indent + (f"{label} " if label else "")
    wrapped = textwrap.wrap(
        text,
        width,
        initial_indent=lead,
        subsequent_indent=" " * len(lead),
        break_long_words=False,
        break_on_hyphens=False,
    )
    return wrapped or [lead.rstrip()]


def plain(pages: Iterable[Page]) -> str:
    """Pages as text without any styling."""
    out = StringIO()
    console = Console(file=out, color_system=None, width=10_000, force_terminal=False)
    for page in pages:
        page.show(console)
    return out.getvalue().rstrip("\n")
