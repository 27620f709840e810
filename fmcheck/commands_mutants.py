"""`fmcheck mutants`: the proof that the rules catch what they name, and stay silent on correct pipelines."""

from collections.abc import Callable, Iterable
from functools import partial

from rich.console import Console

from fmcheck.commands import progress, stdout, width_of
from fmcheck.mutants import Kill, Mutant, Variation, all_mutants, all_variations, get_mutant, kill_table
from fmcheck.outcome import Report
from fmcheck.report.groups import group_findings
from fmcheck.report.layout import Page
from fmcheck.report.verdict import plural
from fmcheck.run import check
from fmcheck.subjects import load_subject

__all__ = ["list_all", "prove"]


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


def prove(names: list[str], *, full: bool = False) -> int:
    """The kill table; without names also the clean model and its variations. 1 on a miss or a false alarm.

    With `full` all rules are asked about every mutant, not only the one that it names.

    Raises:
        DeclarationError: a name that no mutant has; names the nearest.
    """
    chosen = [get_mutant(name) for name in names] or all_mutants()
    clean = [] if names else [Variation("clean", lambda subject: subject), *all_variations()]
    with progress(len(chosen) + len(clean), "models") as (say, advance):
        kills = _kills(chosen, say, advance, full=full)
        alarms = list(_alarms(clean, say, advance))
    console = stdout()
    _show_kills(kills, console)
    if clean:
        _show_alarms(alarms, console)
    missed = [kill for kill in kills if kill.missed]
    failed = [variation.name for variation, report in alarms if _alarm(variation, report)]
    _show_verdict(console, kills, missed, alarms, failed)
    return int(bool(missed or failed))


def _kills(chosen: list[Mutant], say: Callable[[str], None], advance: Callable[[], None], *, full: bool) -> list[Kill]:
    kills = []
    for mutant in chosen:
        say(mutant.name)
        kills.extend(kill_table([mutant], full=full))
        advance()
    return kills


def _alarms(
    clean: list[Variation], say: Callable[[str], None], advance: Callable[[], None]
) -> Iterable[tuple[Variation, Report]]:
    for variation in clean:
        say(variation.name)
        load = partial(load_subject, f"variation:{variation.name}")
        yield variation, check(variation.change(load_subject("tiny")), nproc=variation.nproc, load=load)
        advance()


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


def _show_alarms(alarms: list[tuple[Variation, Report]], console: Console) -> None:
    page = Page(width_of(console))
    page.blank()
    longest = max((len(variation.name) for variation, _ in alarms), default=0)
    for variation, report in alarms:
        alarm = _alarm(variation, report)
        text = f"false alarm: {alarm}" if alarm else f"silent, {plural(report.count('passed'), 'rule')} passed"
        page.text(text, label=f"{variation.name:<{longest}}", label_style="bold red" if alarm else "green")
    page.show(console)


def _show_verdict(
    console: Console,
    kills: list[Kill],
    missed: list[Kill],
    alarms: list[tuple[Variation, Report]],
    failed: list[str],
) -> None:
    page = Page(width_of(console))
    page.blank()
    other = sum(bool(kill.also) for kill in missed)
    caught = sum(kill.by_named for kill in kills)
    text = (
        f"{plural(len(kills), 'mutant')}: {caught} caught by the rule they name, {other} by another, "
        f"{len(missed) - other} missed"
    )
    if len(kills) > caught + len(missed):
        text += f", {len(kills) - caught - len(missed)} not judged"
    if alarms:
        text += f"; {plural(len(alarms), 'correct pipeline')}: {plural(len(failed), 'false alarm')}"
    page.text(text)
    page.line(("FAILED", "bold red") if missed or failed else ("CLEAN", "bold green"))
    page.show(console)
