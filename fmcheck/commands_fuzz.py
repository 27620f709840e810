"""What `fmcheck fuzz` does."""

import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from fmcheck.commands import contained, stdout, width_of
from fmcheck.errors import ForeignRuleError, InternalError
from fmcheck.files import require_folder
from fmcheck.fuzz import Find, FuzzReport
from fmcheck.fuzz.workers import run_workers
from fmcheck.fuzz_gate import Hunt
from fmcheck.gate import Gate, prepare
from fmcheck.report.fuzz import find_page, first_page, fuzz_json, fuzz_page
from fmcheck.report.layout import Page
from fmcheck.repro import write_find
from fmcheck.trial import MEMORY

__all__ = ["fuzz"]


class _Reporter:
    """Prints failures as they come, and writes their reproduction files."""

    def __init__(self, gate: Gate, folder: Path | None, *, quiet: bool, bar: Progress, total: int | None) -> None:
        self._gate, self._folder, self._quiet, self._bar = gate, folder, quiet, bar
        self._console = stdout()
        self._width = width_of(self._console)
        self._task = bar.add_task("", total=total)
        self._found = 0
        self.files: dict[str, list[str]] = {}

    def example(self, count: int) -> None:
        self._bar.update(self._task, completed=count, description=f"{self._found} found")

    def first(self, found: Find) -> None:
        self._found += 1
        if not self._quiet:
            self._show(first_page(found, self._width))

    def find(self, found: Find) -> None:
        self.files[found.code] = list(self._written(found))
        if not self._quiet:
            self._show(find_page(found, self._width, self.files[found.code]))

    def _show(self, page: Page) -> None:
        # Through the bar's own console while it is on a terminal, or the bar would be torn apart.
        console = self._bar.console if self._bar.console.is_terminal and self._console.is_terminal else self._console
        page.show(console)

    def _written(self, found: Find) -> Iterator[str]:
        if self._folder is not None:
            yield from write_find(self._folder, self._gate.target, self._gate.subject, found)


def fuzz(
    hunt: Hunt, *, workers: int, output_format: str, repro_dir: Path | None, strict: bool, verbose: bool = False
) -> int:
    """Search, print, shrink; 1 when a rule is broken (out of memory alone is none, unless strict), 130 on Ctrl-C."""
    if repro_dir is not None:
        require_folder("--repro-dir", repro_dir)
    with contained():
        gate = prepare(hunt.target, select=hunt.select, ignore=hunt.ignore, device=hunt.device, dtype=hunt.dtype)
    columns = (
        TextColumn("{task.description:<10}"),
        BarColumn(),
        TextColumn("{task.completed} examples"),
        TimeElapsedColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        total = hunt.limits.examples
        reporter = _Reporter(gate, repro_dir, quiet=output_format == "json", bar=bar, total=total)
        report = _run(hunt, workers, reporter)
    _conclude(report, gate, reporter, hunt.limits.seed, output_format, verbose=verbose)
    if report.broken:
        # Codes that begin with FM are fmcheck's own.
        foreign = all(re.match(r"rule (?!FM)[A-Z]{2,4}\d{3} ", text) for text in report.broken)
        raise (ForeignRuleError if foreign else InternalError)("; ".join(report.broken))
    if report.interrupted:
        return 130
    return int(any(found.code != MEMORY or strict for found in report.finds))


def _run(hunt: Hunt, workers: int, reporter: _Reporter) -> FuzzReport:
    hooks: dict[str, Callable[..., None]] = {
        "on_example": reporter.example,
        "on_first": reporter.first,
        "on_find": reporter.find,
    }
    if workers > 1:
        return run_workers(hunt.shared(workers).campaign, workers, **hooks)
    campaign = hunt.campaign()
    for name, hook in hooks.items():
        setattr(campaign, name, hook)
    with contextlib.closing(campaign.executor):
        return campaign.run()


def _conclude(
    report: FuzzReport, gate: Gate, reporter: _Reporter, seed: int, output_format: str, *, verbose: bool
) -> None:
    if output_format == "json":
        print(fuzz_json(report, gate.context(), seed=seed, files=reporter.files))
        return
    console = stdout()
    fuzz_page(report, width_of(console), seed=seed, verbose=verbose).show(console)
