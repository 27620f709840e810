"""What the commands do. Each returns an exit code where it can fail."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from fmcheck.errors import DeclarationError
from fmcheck.files import require_folder
from fmcheck.gate import Gate
from fmcheck.outcome import Report
from fmcheck.report.explain import explain_page
from fmcheck.report.github import github_lines
from fmcheck.report.json import report_json, rules_json
from fmcheck.report.tables import rules_page
from fmcheck.report.text import report_page
from fmcheck.report.verdict import verdict_of
from fmcheck.rules import all_rules, get_rule, select_rules
from fmcheck.session import Session

if TYPE_CHECKING:
    from fmcheck.plots.album import Picture

__all__ = ["contained", "explain", "progress", "rules", "run", "stdout", "width_of"]

# Wider lines are hard to read, even where the terminal has room for them.
_WIDEST = 120


def run(
    gate: Gate,
    output_format: str,
    *,
    verbose: bool = False,
    repro_dir: Path | None = None,
    plots: Path | None = None,
) -> int:
    """Check, write the report to stdout; 1 when the gate fails. Reproduction files and pictures are named on stderr.

    Raises:
        DeclarationError: pictures or reproduction files cannot be made there; no run was made.
        InternalError: a rule broke. The report of the others has been written by then.
    """
    if repro_dir is not None:
        require_folder("--repro-dir", repro_dir)
    report, pictures = _checked(gate, plots)
    verdict = verdict_of(report, strict=gate.strict, min_checked=gate.min_checked)
    context = gate.context()
    if output_format == "json":
        print(
            report_json(report, verdict, context, None if plots is None else [picture.table() for picture in pictures])
        )
    elif output_format == "github":
        print("\n".join(github_lines(report, verdict, context)))
    else:
        console = stdout()
        report_page(report, verdict, context, width=width_of(console), verbose=verbose).show(console)
    if output_format != "json":
        for picture in pictures:
            print(picture, file=sys.stderr)
    if repro_dir is not None:
        _write_reproductions(repro_dir, gate, report)
    if report.broken:
        raise report.broken[0]
    return int(verdict.failed)


def _write_reproductions(folder: Path, gate: Gate, report: Report) -> None:
    from fmcheck.repro import write_report

    with contained():
        for written in write_report(folder, gate.target, gate.subject, report):
            known = " (was there already)" if written.known else ""
            text = f"fmcheck replay {written.path}{known}" if written.path else f"no file: {written.reason}"
            print(f"{written.code}: {text}", file=sys.stderr)


def rules(output_format: str) -> None:
    """The table of all rules."""
    with contained():
        known = all_rules()
    if output_format == "json":
        print(rules_json(known))
        return
    console = stdout()
    rules_page(known, width=width_of(console)).show(console)


def explain(code: str) -> None:
    """The page of one rule.

    Raises:
        DeclarationError: no such rule; names the nearest.
    """
    with contained():
        rule = get_rule(code)
    console = stdout()
    explain_page(rule, width=width_of(console)).show(console)


def _checked(gate: Gate, plots: Path | None = None) -> tuple[Report, list["Picture"]]:
    total = len(select_rules(gate.select, gate.ignore))
    pictures: list["Picture"] = []
    draw = None if plots is None else _drawing(plots, pictures)
    with contained(), progress(total, "rules") as (say, advance):
        report = gate.check(on_run=lambda name: say(f"run {name}"), on_outcome=lambda _: advance(), on_judged=draw)
    return report, pictures


def _drawing(plots: Path, pictures: list["Picture"]) -> Callable[[Session, Report], None]:
    """What draws a judged session into the folder, and lists the pictures."""
    # No other command needs it, and the start is waited for.
    from fmcheck.plots.album import album, folder_for_pictures

    folder = folder_for_pictures(plots)
    return lambda session, report: pictures.extend(album(session, report, folder))


@contextmanager
def contained() -> Iterator[None]:
    """Run the user's code so that it cannot speak for fmcheck: its prints go to stderr, and its exits are errors.

    Otherwise a model that prints its steps would break the JSON, and one that calls `sys.exit(0)` would pass the gate.

    Raises:
        DeclarationError: the code called `sys.exit`.
    """
    try:
        with redirect_stdout(sys.stderr):
            yield
    except SystemExit as exit_:
        raise DeclarationError(
            f"the subject called sys.exit({exit_.code!r}) while it was imported or run, so nothing was judged; "
            "raise an exception instead"
        ) from exit_


@contextmanager
def progress(
    total: int, unit: str, *, left: bool = False
) -> Iterator[tuple[Callable[[str], None], Callable[[], None]]]:
    """A bar on stderr that disappears; nothing where stderr is no terminal. Yields `(say, advance)`.

    Args:
        left: show the time left, for steps that take about as long as each other, in the place of the time gone.
    """
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description:<24}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeRemainingColumn() if left else TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=total)
        yield (lambda text: bar.update(task, description=text)), (lambda: bar.advance(task))


def stdout() -> Console:
    """The console of reports."""
    return Console(file=sys.stdout)


def width_of(console: Console) -> int:
    """Columns to fill."""
    return min(console.width, _WIDEST)
