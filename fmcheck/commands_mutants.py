"""`fmcheck mutants`: the proof that the rules catch what they name, and stay silent on correct pipelines."""

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch
from rich.console import Console

from fmcheck.commands import progress, stdout, width_of
from fmcheck.errors import DeclarationError
from fmcheck.mutants import Kill, Mutant, Variation, all_mutants, all_variations, get_mutant, kill_table
from fmcheck.processes import leave_interrupts
from fmcheck.report.groups import group_findings
from fmcheck.report.layout import Page
from fmcheck.report.verdict import plural
from fmcheck.run import Report, check
from fmcheck.subject import Subject
from fmcheck.subjects import load_subject

__all__ = ["list_all", "prove"]

E = TypeVar("E", Mutant, Variation)
T = TypeVar("T")


@dataclass(frozen=True)
class _Heard:
    """What the rules said about a correct pipeline: nothing, if `alarm` is empty."""

    variation: Variation
    alarm: str
    passed: int


def list_all() -> None:
    """Name, rule and defect of every mutant, then the correct variations."""
    console = stdout()
    page = Page(width_of(console))
    page.line(("mutants", "bold"), f" ({len(all_mutants())}), each with the rule that must catch it")
    _list(page, all_mutants())
    odd = all_mutants(odd=True)
    page.line(("odd mutants", "bold"), f" ({len(odd)}), which only `fmcheck fuzz mutant:NAME` finds")
    _list(page, odd)
    page.line(("correct variations", "bold"), f" ({len(all_variations())}), on which every rule must be silent")
    for variation in all_variations():
        page.line("  ", (variation.name, "bold"))
        page.text(variation.summary, indent=8)
    page.show(console)


def _list(page: Page, mutants: list[Mutant]) -> None:
    for mutant in mutants:
        page.line("  ", (mutant.caught_by, "bold red"), " ", (mutant.name, "bold"))
        page.text(mutant.summary, indent=8)
    page.blank()


def prove(names: list[str], *, full: bool = False, workers: int = 1) -> int:
    """The kill table; without names also the clean model and its variations. 1 on a miss or a false alarm.

    With `full` all rules are asked about every mutant, not only the one that it names; `workers` are processes.

    Raises:
        DeclarationError: a name that no mutant has (names the nearest), or a process was killed.
    """
    chosen = [get_mutant(name) for name in names] or all_mutants()
    clean = [] if names else [Variation("clean", _unchanged), *all_variations()]
    with progress(len(chosen) + len(clean), "models") as (say, advance):

        def done(name: str) -> None:
            say(name)
            advance()

        kills = _each(partial(_kill, full=full), chosen, workers, done)
        heard = _each(_listen, clean, workers, done)
    console = stdout()
    _show_kills(kills, console)
    if clean:
        _show_alarms(heard, console)
    missed = [kill for kill in kills if kill.missed]
    _show_verdict(console, kills, missed, heard)
    return int(bool(missed or any(pipeline.alarm for pipeline in heard)))


def _unchanged(subject: Subject) -> Subject:
    return subject


def _each(judge: Callable[[E], T], entries: Sequence[E], workers: int, done: Callable[[str], None]) -> list[T]:
    """`judge` of every entry, in their order, by one process or several; `done` hears the name of each."""
    judged: dict[str, T] = {}
    if workers == 1:
        for entry in entries:
            judged[entry.name] = judge(entry)
            done(entry.name)
    else:
        # Spawned, since CUDA does not survive a fork.
        spawn = multiprocessing.get_context("spawn")
        share = max(1, torch.get_num_threads() // workers)
        with ProcessPoolExecutor(workers, spawn, initializer=_begin, initargs=(share,)) as pool:
            asked = {pool.submit(judge, entry): entry.name for entry in entries}
            try:
                for answer in as_completed(asked):
                    judged[asked[answer]] = answer.result()
                    done(asked[answer])
            except BrokenProcessPool as error:
                raise DeclarationError(
                    "a process that judged mutants was killed, as for want of memory (about 2 GB each); ask for fewer "
                    "--workers"
                ) from error
            finally:
                pool.shutdown(cancel_futures=True)
    return [judged[entry.name] for entry in entries]


def _begin(threads: int) -> None:
    leave_interrupts()
    torch.set_num_threads(threads)


def _kill(mutant: Mutant, *, full: bool) -> Kill:
    return kill_table([mutant], full=full)[0]


def _listen(variation: Variation) -> _Heard:
    load = partial(load_subject, f"variation:{variation.name}")
    report = check(variation.change(load_subject("tiny")), nproc=variation.nproc, load=load)
    return _Heard(variation, _alarm(variation, report), report.count("passed"))


def _alarm(variation: Variation, report: Report) -> str:
    """What a rule said about a correct pipeline, each kind once; empty when all were silent.

    Notes are no alarm, and neither is the warning that a variation declares.
    """
    declared = {("warning", code) for code in variation.warns}
    groups = group_findings(
        finding
        for finding in report.findings
        if finding.severity != "note" and (finding.severity, finding.code) not in declared
    )
    return "; ".join(f"{group.first} ({len(group.findings)} like it)" for group in groups)


def _show_kills(kills: list[Kill], console: Console) -> None:
    page = Page(width_of(console))
    longest = max((len(kill.mutant.name) for kill in kills), default=0)
    for kill in kills:
        style = "bold red" if kill.missed else "green"
        also = f", also {' '.join(kill.also)}" if kill.also and kill.by_named else ""
        by = f" ({' '.join(kill.also)}), not by {kill.mutant.caught_by}" if kill.also and kill.missed else ""
        wanted = "" if kill.also or not kill.missed else f", {kill.mutant.caught_by} should catch it"
        text = f"{kill.verdict}{also}{by}{wanted}  {kill.calls} calls, {kill.seconds:.1f} s"
        page.text(text, label=f"{kill.mutant.name:<{longest}}", label_style=style)
    page.show(console)


def _show_alarms(heard: list[_Heard], console: Console) -> None:
    page = Page(width_of(console))
    page.blank()
    longest = max(len(pipeline.variation.name) for pipeline in heard)
    for pipeline in heard:
        alarm = pipeline.alarm
        text = f"false alarm: {alarm}" if alarm else f"silent, {plural(pipeline.passed, 'rule')} passed"
        page.text(text, label=f"{pipeline.variation.name:<{longest}}", label_style="bold red" if alarm else "green")
    page.show(console)


def _show_verdict(console: Console, kills: list[Kill], missed: list[Kill], heard: list[_Heard]) -> None:
    page = Page(width_of(console))
    page.blank()
    failed = [pipeline.variation.name for pipeline in heard if pipeline.alarm]
    other = sum(bool(kill.also) for kill in missed)
    caught = sum(kill.by_named for kill in kills)
    text = (
        f"{plural(len(kills), 'mutant')}: {caught} caught by the rule they name, {other} by another, "
        f"{len(missed) - other} missed"
    )
    if len(kills) > caught + len(missed):
        text += f", {len(kills) - caught - len(missed)} not judged"
    if heard:
        text += f"; {plural(len(heard), 'correct pipeline')}: {plural(len(failed), 'false alarm')}"
    page.text(text)
    page.line(("FAILED", "bold red") if missed or failed else ("CLEAN", "bold green"))
    page.show(console)
