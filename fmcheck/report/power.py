"""What a campaign of planted faults found, as text and as JSON."""

import json
from typing import Any

from fmcheck.power.advice import declaration_of
from fmcheck.power.campaign import Power, Trial
from fmcheck.power.fault import Fault
from fmcheck.report.context import Context, versions
from fmcheck.report.json import SCHEMA, finite
from fmcheck.report.layout import Page
from fmcheck.report.verdict import plural, some

__all__ = ["faults_json", "faults_page", "power_json", "power_page"]

_TITLES = {
    "missed": "missed: planted, with an effect, and no rule said so",
    "no effect": "had no effect",
    "not planted": "could not be planted",
}
_CODES, _CALLS = 24, 5


def faults_page(faults: list[Fault], *, width: int) -> Page:
    """Name, place and defect of every fault."""
    page = Page(width)
    page.line(
        ("faults", "bold"), f" ({len(faults)}), with what the subject must declare and the rules that notice each"
    )
    for fault in faults:
        page.line(
            "  ", (fault.name, "bold"), (f"  {', '.join(fault.needs) or fault.role}; {some([*fault.rules])}", "dim")
        )
        page.text(fault.summary, indent=8)
    return page


def faults_json(faults: list[Fault]) -> str:
    """The same as JSON."""
    return json.dumps([_fault(fault) for fault in faults], indent=2, ensure_ascii=False)


def power_page(power: Power, *, target: str, width: int, shortfall: str = "") -> Page:
    """A row a noticed fault, then the others with their reasons, what would help, and the counts."""
    page = Page(width)
    longest = max((len(trial.fault.name) for trial in power.trials), default=5)
    page.line(("subject", "dim"), "  ", (target, "bold"))
    _failing(page, power)
    page.blank()
    _noticed(page, [trial for trial in power.trials if trial.noticed], longest)
    for status, title in _TITLES.items():
        trials = [trial for trial in power.trials if trial.status == status]
        if trials:
            page.line((title, "bold"), f" ({len(trials)})")
            _by_reason(page, trials, style="bold red" if status == "missed" else "bold")
            page.blank()
    _helpful(page, power)
    page.text(_counts(power))
    if shortfall:
        page.text(shortfall, label="FAILED:", label_style="bold red")
    return page


def _failing(page: Page, power: Power) -> None:
    if power.baseline.failing:
        page.text(
            f"{some(power.baseline.failing)} find something without any fault, so they can notice none; "
            "`fmcheck run` shows what",
            style="yellow",
        )


def _noticed(page: Page, trials: list[Trial], longest: int) -> None:
    if not trials:
        return
    page.line((f"  {'fault':<{longest}} {'noticed by':<{_CODES}} {'calls':>{_CALLS}}", "bold"))
    for trial in trials:
        page.line("  ", (f"{trial.fault.name:<{longest}}", "green"), f" {_by(trial):<{_CODES}} {trial.calls:>{_CALLS}}")
    page.blank()


def _by(trial: Trial) -> str:
    if trial.status == "raised":
        return "the pipeline itself"
    shown = " ".join(trial.rules[:3])
    more = f" +{len(trial.rules) - 3}" if len(trial.rules) > 3 else ""
    return f"{shown}{more}{' (warning)' if trial.status == 'warned' else ''}"


def _by_reason(page: Page, trials: list[Trial], *, style: str) -> None:
    """Faults that share a reason under it, since one missing point is the reason of many."""
    groups: dict[str, list[Trial]] = {}
    for trial in trials:
        groups.setdefault(trial.reason, []).append(trial)
    for reason, group in groups.items():
        helps = " and ".join(declaration_of(need) for need in group[0].helps)
        calls = max(trial.calls for trial in group)
        text = reason + (f"; {helps} would help" if helps else "") + (f" ({plural(calls, 'call')})" if calls else "")
        page.text(", ".join(trial.fault.name for trial in group), indent=2, style=style)
        page.text(text, indent=6)


def _helpful(page: Page, power: Power) -> None:
    """What to declare, by the number of faults that it would make visible."""
    counts: dict[str, int] = {}
    for trial in power.trials:
        for need in trial.helps:
            counts[need] = counts.get(need, 0) + 1
    if counts:
        page.line(("what would show more", "bold"))
        for need, count in sorted(counts.items(), key=lambda entry: -entry[1]):
            page.text(plural(count, "fault"), indent=2, label=declaration_of(need), label_style="bold")
        page.blank()


def _counts(power: Power) -> str:
    warned, raised = len(power.of("warned")), len(power.of("raised"))
    extra = [f"{warned} by a warning only"] if warned else []
    extra += [f"{raised} by an exception of the pipeline"] if raised else []
    noticed = f"{sum(trial.noticed for trial in power.trials)} noticed"
    noticed += f" ({', '.join(extra)})" if extra else ""
    return (
        f"{plural(len(power.trials), 'fault')}: {noticed}, "
        f"{len(power.of('missed'))} missed, {len(power.of('no effect'))} without effect, "
        f"{len(power.of('not planted'))} not planted; {power.share:.1f} % of those with an effect were noticed; "
        f"{plural(power.calls, 'generate() call')}, {power.baseline.calls} of them without a fault, "
        f"{power.seconds:.1f} s"
    )


def power_json(power: Power, context: Context, *, shortfall: str = "") -> str:
    """Every trial with all it found."""
    document = {
        "schema": SCHEMA,
        "subject": context.target,
        "case": context.case.as_table(),
        "versions": versions(context.case.device),
        "failed": bool(shortfall),
        "share": power.share,
        "failing_without_a_fault": power.baseline.failing,
        "baseline_calls": power.baseline.calls,
        "generate_calls": power.calls,
        "seconds": power.seconds,
        "trials": [_trial(trial) for trial in power.trials],
    }
    return json.dumps(finite(document), indent=2, ensure_ascii=False, allow_nan=False)


def _trial(trial: Trial) -> dict[str, Any]:
    return {
        **_fault(trial.fault),
        "status": trial.status,
        "noticed_by": list(trial.rules),
        "message": trial.message,
        "generate_calls": trial.calls,
        "reason": trial.reason,
        "would_help": [declaration_of(need) for need in trial.helps],
        "seconds": trial.seconds,
    }


def _fault(fault: Fault) -> dict[str, Any]:
    return {
        "name": fault.name,
        "defect": fault.summary,
        "role": fault.role,
        "kind": fault.kind,
        "needs": list(fault.needs),
        "known_to_notice": list(fault.rules),
    }
