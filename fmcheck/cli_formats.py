"""Options that several commands share."""

from enum import StrEnum
from typing import Annotated

import typer

__all__ = ["Codes", "Format", "TableFormat", "codes", "group"]


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


def group(text: str) -> typer.Typer:
    """An application for commands of one kind, which the command line takes in under their name."""
    return typer.Typer(
        help=text,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
