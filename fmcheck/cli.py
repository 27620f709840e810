"""The command line: arguments and exit codes. What the commands do is in `fmcheck.commands`, imported when one runs.

Exit codes: 0 clean; 1 the model failed the gate; 2 wrong usage or declaration; 3 fmcheck itself, or a rule
of another package, broke; 130 interrupted.
"""

import platform
import sys
import textwrap
import traceback
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated

import typer

from fmcheck import __version__
from fmcheck.cli_exp import exp_app
from fmcheck.cli_formats import Codes, Format, TableFormat, codes
from fmcheck.cli_fuzz import fuzz
from fmcheck.cli_power import power
from fmcheck.cli_replay import replay
from fmcheck.cli_sweep import ManyValues, sweep
from fmcheck.cli_tiny import tiny_app
from fmcheck.errors import DeclarationError, ForeignRuleError

__all__ = ["app", "main"]

app = typer.Typer(
    name="fmcheck",
    help="Check a flow-matching text-to-image pipeline: shapes, guidance, time, integration, codec, batch, training.",
    no_args_is_help=True,
    add_completion=False,
    # Locals of a traceback would print tensors, and a traceback in colour cannot be searched in a log.
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


_FRAMES = 8


def _show_version(wanted: bool) -> None:
    if not wanted:
        return
    try:
        # Asked of the package's metadata, since importing torch takes a second.
        torch = version("torch")
    except PackageNotFoundError:
        torch = "is not installed"
    typer.echo(f"fmcheck {__version__} (torch {torch}, Python {platform.python_version()})")
    raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the versions and exit.")
    ] = False,
) -> None:
    pass


@app.command()
def run(
    subject: Annotated[
        str | None, typer.Argument(help="tiny, or package.module:attribute; by default the configured one, else tiny.")
    ] = None,
    select: Codes = None,
    ignore: Codes = None,
    device: Annotated[str | None, typer.Option(help="Torch device, as cuda:0.")] = None,
    dtype: Annotated[str | None, typer.Option(help="Dtype of the velocity network, as bfloat16.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the native case.")] = None,
    output_format: Annotated[Format, typer.Option(help="How the report is written.")] = Format.text,
    strict: Annotated[bool | None, typer.Option("--strict/--no-strict", help="Warnings fail the gate too.")] = None,
    min_checked: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="Fail when fewer than N rules really judged something.")
    ] = None,
    thorough: Annotated[
        bool | None, typer.Option("--thorough/--no-thorough", help="Judge the rules that cost minutes too.")
    ] = None,
    nproc: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Judge the rules about ranks too, on N processes.")
    ] = None,
    repro_dir: Annotated[
        Path | None, typer.Option(help="Write a reproduction file for every rule that fails into this folder.")
    ] = None,
    plots: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Draw the native run and every rule that fails as PNG files into this folder."
        ),
    ] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Every kind of finding, every reason and ratio, the runs made.")
    ] = False,
) -> None:
    """Check a subject: make its runs, judge them by every rule, report. Also reads the tool.fmcheck table."""
    from fmcheck import commands
    from fmcheck.gate import prepare

    with commands.contained():
        gate = prepare(
            subject,
            select=codes(select),
            ignore=codes(ignore),
            device=device,
            dtype=dtype,
            seed=seed,
            strict=strict,
            min_checked=min_checked,
            thorough=thorough,
            nproc=nproc,
        )
    code = commands.run(gate, output_format.value, verbose=verbose, repro_dir=repro_dir, plots=plots)
    raise typer.Exit(code)


@app.command()
def rules(
    output_format: Annotated[TableFormat, typer.Option(help="How the table is written.")] = TableFormat.text,
) -> None:
    """List the rules: code, name, what must hold."""
    from fmcheck import commands

    commands.rules(output_format.value)


@app.command()
def explain(code: Annotated[str, typer.Argument(help="A code or a name, as FM203 or wrong-guidance.")]) -> None:
    """Show what a rule demands, how code goes wrong, what is checked, and how to fix it."""
    from fmcheck import commands

    commands.explain(code)


@app.command()
def mutants(
    names: Annotated[list[str] | None, typer.Argument(help="Only these; by default all, and the variations.")] = None,
    list_only: Annotated[bool, typer.Option("--list", help="List the mutants and make no run.")] = False,
    full: Annotated[bool, typer.Option("--full", help="Ask all rules about every mutant, not only its own.")] = False,
    workers: Annotated[int, typer.Option("-n", "--workers", min=1, help="Processes that judge at once.")] = 1,
) -> None:
    """Prove the rules: plant known defects in the tiny model and see which rule catches each."""
    from fmcheck import commands_mutants as command

    if list_only:
        command.list_all()
        return
    raise typer.Exit(command.prove(names or [], full=full, workers=workers))


@app.command()
def init(
    builder: Annotated[str, typer.Argument(help="package.module:builder, a function that returns the model.")],
    output: Annotated[Path, typer.Option(help="The file to write; never overwritten.")] = Path("fmcheck_subject.py"),
    call: Annotated[
        str | None, typer.Option(help="How pictures are made, as 'model.generate(prompts, steps={num_steps})'.")
    ] = None,
    generate: Annotated[
        str | None, typer.Option(help="package.module:function, given (model, request), that returns pictures.")
    ] = None,
) -> None:
    """Run your sampler a few times and write a subject for it, with the evidence for every line."""
    from fmcheck import commands_init as command

    raise typer.Exit(command.init(builder, output, call, generate))


app.command()(fuzz)
app.command()(power)
app.command()(replay)
app.command(cls=ManyValues)(sweep)
app.add_typer(exp_app, name="exp")
app.add_typer(tiny_app, name="tiny")


def main() -> None:
    """Entry point of the `fmcheck` command."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(_complain("fmcheck: interrupted; nothing was judged to its end", 130))
    except DeclarationError as error:
        sys.exit(_complain(f"fmcheck: {error}", 2))
    except ForeignRuleError as error:
        _show_origin(error)
        sys.exit(
            _complain(
                f"fmcheck: {error}\nThis is a defect of that package, not of fmcheck, and says nothing about the "
                "model. Mend the rule there, or leave it out with --ignore and its code.",
                3,
            )
        )
    except Exception as error:
        _show_origin(error)
        sys.exit(
            _complain(
                f"fmcheck: internal error: {type(error).__name__}: {error}\n"
                "This is a defect of fmcheck and says nothing about the model. Please report it with the lines above, "
                "the command and the output of fmcheck --version.",
                3,
            )
        )


def _show_origin(error: BaseException) -> None:
    """The traceback of the first error of a chain; the frames of the command line above it help nobody."""
    while error.__cause__ is not None:
        error = error.__cause__
    traceback.print_exception(error, limit=-_FRAMES, chain=False)


def _complain(message: str, code: int) -> int:
    for paragraph in message.splitlines():
        lines = textwrap.wrap(paragraph, 100, break_long_words=False, break_on_hyphens=False)
        print("\n".join(lines), file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
