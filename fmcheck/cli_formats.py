"""Options that several commands share."""

from enum import StrEnum
from typing import Annotated

import typer

__all__ = ["Codes", "Format", "TableFormat", "codes"]


class Format(StrEnum):
    """How a report is written."""

    text = "text"
    json = "json"
    github = "github"


class TableFormat(StrEnum):
    """How a table is written."""

    text = "text"
    json = "json"


def codes(values: list[str] | None) -> list[str]:
    """`["A,B", "C"]` as `["A", "B", "C"]`; an empty value stays, to be refused as one that names no rule."""
    found = [code.strip() for value in values or [] for code in value.split(",")]
    return [code for code in found if code] or found[:1]


Codes = Annotated[list[str] | None, typer.Option(metavar="CODES", help="Codes or prefixes, as FM2,FM305; repeatable.")]
