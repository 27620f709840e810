"""`fmcheck exp`: the header at the top of a configuration, and the note of an experiment."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from fmcheck.cli_formats import group

__all__ = ["exp_app"]

exp_app = group("Headers of configurations and notes of experiments.")


class Conclusion(StrEnum):
    """What becomes of an experiment."""

    keep = "keep"
    reject = "reject"
    retest = "retest"


class Language(StrEnum):
    """Of the headings and labels of a note."""

    en = "en"
    zh = "zh"
    both = "both"


Output = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="A new file; an existing one is never written over. Default: stdout."),
]


@exp_app.command()
def check(files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="YAML, TOML or INI files.")]) -> None:
    """Check the EXP CONFIG META header at the top of files; every problem with its line; exit code 1 on any."""
    from fmcheck import commands_exp

    raise typer.Exit(commands_exp.check(files))


@exp_app.command()
def new(
    title: Annotated[str, typer.Option(help="A short one-liner.")] = "",
    purpose: Annotated[str, typer.Option(help="What the configuration tests.")] = "",
    key_diff: Annotated[
        list[str] | None, typer.Option(metavar="KNOB", help="What differs from the baseline; give 2 to 4.")
    ] = None,
    dataset: Annotated[str, typer.Option(help="As '24M t2i'.")] = "",
    hardware: Annotated[str, typer.Option(help="As A100x64. Default: this machine.")] = "",
    core_params: Annotated[str, typer.Option(help="As 'lr=1e-4, batch=2048, res=256, seed=0'.")] = "",
    tag: Annotated[list[str] | None, typer.Option(metavar="TAG", help="Repeatable.")] = None,
    notes: Annotated[str, typer.Option(help="Any caveat.")] = "",
    suffix: Annotated[str, typer.Option(help="The last part of the experiment's id, whose date is today.")] = "A",
    output: Output = None,
) -> None:
    """Write a new header, with branch and commit from git; what is not given keeps the template's text, to fill in."""
    from fmcheck import commands_exp

    given = {
        "title": title,
        "purpose": purpose,
        "key_diffs": key_diff or [],
        "dataset": dataset,
        "hardware": hardware,
        "core_params": core_params,
        "tags": tag or [],
        "notes": notes,
    }
    commands_exp.new(given, suffix=suffix, output=output)


@exp_app.command()
def note(
    run_json: Annotated[Path, typer.Argument(metavar="RUN_JSON", help="From fmcheck run --output-format json.")],
    config: Annotated[Path, typer.Option(help="The configuration file with the experiment's header.")],
    conclusion: Annotated[Conclusion, typer.Option(help="Yours; nothing is concluded for you.")],
    baseline: Annotated[
        Path | None, typer.Option(metavar="JSON", help="The baseline's run, for a column beside.")
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option(metavar="SETTING", help="'name=value (baseline value)', at most 4. Default: the header's knobs."),
    ] = None,
    goal: Annotated[str, typer.Option(help="Default: the header's purpose.")] = "",
    next_step: Annotated[str, typer.Option("--next", help="The next step.")] = "",
    lang: Annotated[Language, typer.Option(help="Of headings and labels.")] = Language.both,
    output: Output = None,
) -> None:
    """Write the note of an experiment, in Markdown, from the JSON of its run and the header of its configuration."""
    from fmcheck import commands_exp

    commands_exp.note(
        run_json,
        config,
        conclusion=conclusion.value,
        baseline=baseline,
        settings=setting or [],
        goal=goal,
        next_step=next_step,
        language=lang.value,
        output=output,
    )
