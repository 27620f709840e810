"""`fmcheck sweep`: its arguments."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from fmcheck.cli_formats import TableFormat
from fmcheck.errors import DeclarationError

__all__ = ["ManyValues", "numbers", "sweep"]

_MANY = ("--cfg-scale", "--num-steps")


class ManyValues(TyperCommand):
    """Takes `--cfg-scale 0 2 3` as `--cfg-scale=0 --cfg-scale=2 --cfg-scale=3`: an option takes one value otherwise.

    Only what reads as numbers follows an option, so that a subject may stand behind them.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, _expanded(args))


def _expanded(args: Sequence[str]) -> list[str]:
    found: list[str] = []
    option, waiting = "", False
    for position, arg in enumerate(args):
        if arg == "--":
            return [*found, *([option] if waiting else []), *args[position:]]
        if option and (_are_numbers(arg) or (waiting and not arg.startswith("--"))):
            found.append(f"{option}={arg}")
            option, waiting = (option if _are_numbers(arg) else ""), False
            continue
        if waiting:
            # Without a value; click says so.
            found.append(option)
        name, equals, _ = arg.partition("=")
        option = name if name in _MANY else ""
        waiting = bool(option) and not equals
        if not waiting:
            found.append(arg)
    return [*found, option] if waiting else found


def _are_numbers(text: str) -> bool:
    parts = [part for part in re.split(r"[,\s]+", text) if part]
    try:
        return bool([float(part) for part in parts])
    except ValueError:
        return False


def numbers(option: str, values: list[str] | None, kind: type = float) -> list[Any] | None:
    """`["0,2", "3 4.5"]` as `[0.0, 2.0, 3.0, 4.5]`; None where the option was not given.

    Raises:
        DeclarationError: something that is no number, or no whole one where `kind` is int.
    """
    if values is None:
        return None
    found = []
    for part in (part for value in values for part in re.split(r"[,\s]+", value) if part):
        try:
            found.append(kind(part))
        except ValueError as error:
            what = "whole numbers" if kind is int else "numbers"
            raise DeclarationError(
                f"{option}: expected {what}, separated by blanks or commas; found {part!r}"
            ) from error
    return found


def size_of(text: str | None) -> tuple[int, int] | None:
    """`256` as (256, 256), `192x320` as height 192 and width 320.

    Raises:
        DeclarationError: something else.
    """
    if text is None:
        return None
    found = re.fullmatch(r"(\d+)(?:[xX](\d+))?", text.strip())
    if not found:
        raise DeclarationError(f"--size: expected pixels as 256, or height x width as 192x320; found {text!r}")
    return int(found[1]), int(found[2] or found[1])


def sweep(
    subject: Annotated[
        str | None, typer.Argument(help="tiny, or package.module:attribute; by default the configured one, else tiny.")
    ] = None,
    cfg_scale: Annotated[
        list[str] | None,
        typer.Option(metavar="S...", help="Guidance scales, as 0 2 3 or 0,2,3; by default the weights 0 2 3 4.5 6."),
    ] = None,
    num_steps: Annotated[
        list[str] | None, typer.Option(metavar="K...", help="Sampler steps, as 8 16 (default).")
    ] = None,
    size: Annotated[str | None, typer.Option(help="256, or height x width as 192x320; by default the native.")] = None,
    seeds: Annotated[int, typer.Option(metavar="N", help="Seeds of every prompt, the same at all scales.")] = 4,
    prompts: Annotated[
        Path | None, typer.Option(metavar="FILE", help="One prompt a line; by default the subject's own.")
    ] = None,
    count: Annotated[int | None, typer.Option(metavar="N", help="Only the first N prompts.")] = None,
    batch_size: Annotated[int, typer.Option(metavar="N", help="Prompts of one call.")] = 8,
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="For numbers and pictures; a second call goes on from what is there.")
    ] = Path("fmcheck-sweep"),
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget the runs that are in the folder.")] = False,
    device: Annotated[str | None, typer.Option(help="Torch device, as cuda:0.")] = None,
    dtype: Annotated[str | None, typer.Option(help="Dtype of the velocity network, as bfloat16.")] = None,
    seed: Annotated[int | None, typer.Option(help="The first seed.")] = None,
    pictures: Annotated[bool, typer.Option("--pictures/--no-pictures", help="Draw them; needs matplotlib.")] = True,
    time: Annotated[bool, typer.Option("--time/--no-time", help="Time calls without the recorder, too.")] = True,
    output_format: Annotated[TableFormat, typer.Option(help="How the report is written.")] = TableFormat.text,
) -> None:
    """Make pictures at several guidance scales and numbers of steps from the same noise, measure and compare them."""
    from fmcheck import commands_sweep as command
    from fmcheck.commands import contained
    from fmcheck.gate import prepare
    from fmcheck.sweep import read_prompts, settings_for

    scales = numbers("--cfg-scale", cfg_scale)
    steps = numbers("--num-steps", num_steps, int)
    pixels = size_of(size)
    with contained():
        gate = prepare(subject, device=device, dtype=dtype, seed=seed)
        settings = settings_for(
            gate.subject,
            scales=scales,
            steps=steps,
            size=pixels,
            seeds=seeds,
            prompts=None if prompts is None else read_prompts(prompts),
            count=count,
            batch=batch_size,
        )
    command.sweep(gate, settings, out, fresh=fresh, timed=time, drawn=pictures, output_format=output_format.value)
