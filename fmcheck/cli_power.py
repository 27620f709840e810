"""`fmcheck power`: its arguments."""

from typing import Annotated

import typer

from fmcheck.cli_formats import Codes, TableFormat, codes

__all__ = ["power"]


def power(
    subject: Annotated[
        str | None, typer.Argument(help="tiny, or package.module:attribute; by default the configured one, else tiny.")
    ] = None,
    names: Annotated[list[str] | None, typer.Argument(help="Plant only these faults; by default all.")] = None,
    list_only: Annotated[bool, typer.Option("--list", help="List the faults and make no run.")] = False,
    select: Codes = None,
    ignore: Codes = None,
    device: Annotated[str | None, typer.Option(help="Torch device, as cuda:0.")] = None,
    dtype: Annotated[str | None, typer.Option(help="Dtype of the velocity network, as bfloat16.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the native case.")] = None,
    min_noticed: Annotated[
        float | None,
        typer.Option(metavar="N", min=0, max=100, help="Fail when less than N percent of the faults are noticed."),
    ] = None,
    output_format: Annotated[TableFormat, typer.Option(help="How the report is written.")] = TableFormat.text,
) -> None:
    """Plant faults in your own pipeline, between its observation points, and see which of them the rules notice."""
    from fmcheck import commands_power as command
    from fmcheck.commands import contained
    from fmcheck.gate import prepare

    if list_only:
        command.list_all(names or [], output_format.value)
        return
    with contained():
        gate = prepare(subject, select=codes(select), ignore=codes(ignore), device=device, dtype=dtype, seed=seed)
    raise typer.Exit(command.prove(gate, names or [], output_format=output_format.value, min_noticed=min_noticed))
