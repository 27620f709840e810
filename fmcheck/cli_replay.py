"""`fmcheck replay`: its arguments."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["replay"]


class Expect(StrEnum):
    """What counts as success."""

    fixed = "fixed"
    reproduced = "reproduced"
    file = "file"


def replay(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Reproduction files, or folders that hold *.fmcheck.toml.")
    ],
    expect: Annotated[
        Expect, typer.Option(help="What every file must turn out to be for exit code 0; file: what each file says.")
    ] = Expect.fixed,
    device: Annotated[str | None, typer.Option(help="Another torch device than the recorded one, as cuda:0.")] = None,
    as_pytest: Annotated[
        bool, typer.Option("--as-pytest", help="Run nothing; print a test module with the same scenarios.")
    ] = False,
) -> None:
    """Replay reproduction files: reproduced, fixed, or a different failure.

    Exit codes: 0 all are as expected (by default: fixed), 1 one is not or could not be judged, 2 a file is damaged or
    its subject is gone.
    """
    from fmcheck import commands_replay as command

    if as_pytest:
        command.print_tests(files)
        return
    raise typer.Exit(command.replay(files, expect=expect.value, device=device))
