"""The few pieces of Markdown that a note is made of."""

import json
import re
from collections.abc import Iterable, Sequence
from itertools import zip_longest

from fmcheck.experiment.values import clean

__all__ = ["inline", "paragraph", "quoted", "table"]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table; short rows are filled up with empty cells."""
    lines = [head, ["---"] * len(head)]
    lines += [[cell for cell, _ in zip_longest(map(inline, row[: len(head)]), head, fillvalue="")] for row in rows]
    return [f"| {' | '.join(line)} |" for line in lines]


def inline(text: str) -> str:
    """One line in which nothing ends a cell, opens a tag or emphasises."""
    return re.sub(r"([|<*])", r"\\\1", clean(text))


def paragraph(text: str) -> str:
    """A text whose first sign makes it no heading, list, quotation or fence."""
    return re.sub(r"^(?=[#>+=~`-])", r"\\", inline(text))


def quoted(value: str | list[str]) -> str:
    """A string or a list of them as YAML: in double quotes with JSON's escapes, all of which YAML has too."""
    return json.dumps(clean(value) if isinstance(value, str) else list(map(clean, value)), ensure_ascii=False)
