"""`fmcheck fuzz`: its arguments."""

import re
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from fmcheck.cli_formats import Codes, TableFormat, codes
from fmcheck.errors import DeclarationError

__all__ = ["fuzz", "seconds_of"]

_UNITS = {"s": 1, "m": 60, "h": 3600}


def seconds_of(text: str) -> float:
    """`90`, `90s`, `10m`, `1.5h` in seconds.

    Raises:
        DeclarationError: something else, or nothing above 0.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", text.strip())
    seconds = float(found[1]) * _UNITS[found[2] or "s"] if found else 0.0
    if seconds <= 0:
        raise DeclarationError(f"--time {text!r}: expected a duration such as 90s, 10m or 1.5h")
    return seconds


def fuzz(
    subject: Annotated[
        str | None, typer.Argument(help="tiny, or package.module:attribute; by default the configured one, else tiny.")
    ] = None,
    examples: Annotated[int | None, typer.Option(metavar="N", help="End after N scenarios; 200 by default.")] = None,
    time: Annotated[str | None, typer.Option(help="End after this long, as 90s, 10m or 2h.")] = None,
    profile: Annotated[str | None, typer.Option(help="gate: 50, always the same; nightly: 2000 new ones.")] = None,
    select: Codes = None,
    ignore: Codes = None,
    device: Annotated[str | None, typer.Option(help="Torch device, as cuda:0.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of the search; by default another one every time.")] = None,
    workers: Annotated[int, typer.Option("-n", "--workers", min=1, help="Campaigns at once, each a process.")] = 1,
    budget: Annotated[
        int | None, typer.Option(min=1, help="Cost of one scenario, in pixels x steps x batch; by default 2 native.")
    ] = None,
    max_batch: Annotated[int, typer.Option(min=1, help="Largest number of prompts.")] = 17,
    max_steps: Annotated[int, typer.Option(min=1, help="Largest number of steps.")] = 50,
    max_side: Annotated[int | None, typer.Option(min=1, help="Longest side; by default 4 times the native.")] = None,
    weights: Annotated[
        tuple[float, float], typer.Option(metavar="LOW HIGH", help="Guidance weights w of v = (1 + w) c - w u.")
    ] = (-10.0, 1e5),
    example_time: Annotated[str, typer.Option(help="Time limit of one scenario.")] = "60s",
    shrink_time: Annotated[str, typer.Option(help="Time for shrinking one rule's failure.")] = "60s",
    database: Annotated[
        Path, typer.Option(help="Folder of Hypothesis' examples, replayed first and shareable.")
    ] = Path(".hypothesis/examples"),
    no_database: Annotated[bool, typer.Option("--no-database", help="Keep no examples.")] = False,
    repro_dir: Annotated[
        Path | None, typer.Option(help="Write a reproduction file for every failure into this folder.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings and out of memory fail too.")] = False,
    output_format: Annotated[TableFormat, typer.Option(help="How the report is written.")] = TableFormat.text,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Every axis of what was looked at.")] = False,
) -> None:
    """Search the odd corners: draw scenarios, judge each by every rule, shrink what breaks to the smallest case."""
    from fmcheck.commands_fuzz import fuzz as run
    from fmcheck.fuzz import Limits
    from fmcheck.fuzz.profiles import drawn_seed
    from fmcheck.fuzz.profiles import profile as settings_of
    from fmcheck.fuzz_gate import Hunt
    from fmcheck.strategies import Domain

    chosen = None if profile is None else settings_of(profile)
    if examples is None and (chosen is not None or time is None):
        examples = 200 if chosen is None else chosen.max_examples
    if seed is None:
        seed = drawn_seed(chosen)
    kept = not no_database and (chosen is None or chosen.database is not None)
    hunt = Hunt(
        target=subject,
        select=tuple(codes(select)),
        ignore=tuple(codes(ignore)),
        device=device,
        domain=Domain(budget=budget, max_batch=max_batch, max_steps=max_steps, max_side=max_side, weights=weights),
        limits=Limits(
            examples=examples,
            seconds=None if time is None else seconds_of(time),
            shrink_seconds=seconds_of(shrink_time),
            seed=seed,
            strict=strict,
        ),
        database=database if kept else None,
        spool=repro_dir or (database.parent if kept else Path(tempfile.gettempdir())) / "fmcheck",
        example_seconds=seconds_of(example_time),
    )
    raise typer.Exit(
        run(
            hunt,
            workers=workers,
            output_format=output_format.value,
            repro_dir=repro_dir,
            strict=strict,
            verbose=verbose,
        )
    )
