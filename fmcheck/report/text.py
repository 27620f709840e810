"""The report for a terminal, and the same text without colour for logs and pytest."""

from collections.abc import Iterable

from fmcheck.outcome import Outcome, Report, Status
from fmcheck.report.context import Context, versions
from fmcheck.report.findings import show_outcome_findings
from fmcheck.report.groups import shape_of
from fmcheck.report.layout import Page, plain
from fmcheck.report.tables import show_runs
from fmcheck.report.verdict import Verdict, counted, plural, some

__all__ = ["outcome_text", "report_page"]

# A rule at less than half of its bound is unremarkable; above, the creep deserves a look before it fails.
_CLOSE = 0.5


def report_page(report: Report, verdict: Verdict, context: Context, *, width: int, verbose: bool = False) -> Page:
    """The whole report: header, findings, what nobody judged, what was measured, ratios, counts, verdict."""
    page = Page(width)
    _header(page, context)
    for outcome in _with_findings(report):
        show_outcome_findings(page, outcome, context, full=verbose)
    for problem in report.problems:
        page.text(problem, label="stale expected failure:", label_style="bold red")
        page.blank()
    _reasons(page, report, verbose=verbose)
    _measured(page, report)
    _ratios(page, report, verbose=verbose)
    if verbose:
        _notes(page, report)
        show_runs(page, report, context)
    _footer(page, report, verdict)
    return page


def outcome_text(outcome: Outcome, context: Context, *, width: int = 100) -> str:
    """The findings of one rule as plain text, for a pytest failure."""
    page = Page(width)
    show_outcome_findings(page, outcome, context, full=True)
    return plain([page])


def _header(page: Page, context: Context) -> None:
    found = versions(context.case.device)
    threads = plural(int(found["threads"]), "thread")
    page.text(
        f"fmcheck {found['fmcheck']}  torch {found['torch']}  python {found['python']}  {found['device']}, {threads}",
        style="dim",
    )
    page.line(("subject", "dim"), "  ", (context.target, "bold"))
    page.text(str(context.case), label="case    ", label_style="dim")
    for remark in context.remarks:
        page.text(remark, style="dim")
    page.blank()


def _with_findings(report: Report) -> list[Outcome]:
    """Outcomes to show in full: those with errors first, then warnings, then notes; each by code."""
    ranks = {"error": 0, "warning": 1, "note": 2}
    shown = [o for o in report.outcomes if o.findings and o.status != "expected"]
    return sorted(shown, key=lambda o: min(ranks[f.severity] for f in o.findings))


def _reasons(page: Page, report: Report, *, verbose: bool) -> None:
    """Rules that did not judge, or were expected to fail, by their reason."""
    titles: dict[Status, str] = {
        "expected": "expected failures",
        "out of resources": "out of resources",
        "not informative": "not informative",
        "skipped": "skipped",
    }
    for status, title in titles.items():
        outcomes = [o for o in report.outcomes if o.status == status]
        if outcomes:
            page.line((title, "bold"), f" ({len(outcomes)})")
            for reason, group in _by_reason(outcomes).items():
                _reason(page, reason, group, verbose=verbose)
            page.blank()


def _by_reason(outcomes: Iterable[Outcome]) -> dict[str, list[Outcome]]:
    """Outcomes by the first of the reasons that differ only in numbers and in names of runs."""
    kinds: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        kinds.setdefault(shape_of(outcome.reason), []).append(outcome)
    return {group[0].reason: group for group in kinds.values()}


def _reason(page: Page, reason: str, outcomes: list[Outcome], *, verbose: bool) -> None:
    if verbose:
        page.text(reason, indent=2)
        for outcome in outcomes:
            page.text(f"{outcome.rule}", indent=4, style="dim")
        return
    page.text(f"{reason}: {some([outcome.rule.code for outcome in outcomes])}", indent=2)


def _notes(page: Page, report: Report) -> None:
    """What rules say to whoever wants to know, such as what they could not test."""
    noted = [outcome for outcome in report.outcomes if outcome.notes]
    if noted:
        page.line(("remarks", "bold"))
        for outcome in noted:
            page.text("; ".join(dict.fromkeys(outcome.notes)), indent=2, label=f"{outcome.rule}:", label_style="dim")
        page.blank()


def _measured(page: Page, report: Report) -> None:
    """What the subject's loop was measured to do, whether it is right or not."""
    lines = dict.fromkeys(text for outcome in report.outcomes for text in outcome.measured)
    if lines:
        page.line(("measured", "bold"))
        for text in lines:
            page.text(text, indent=2)
        page.blank()


def _ratios(page: Page, report: Report, *, verbose: bool) -> None:
    """Rules that passed, by the share of their bound that they used."""
    held = [o for o in report.outcomes if o.status == "passed" and o.ratio is not None]
    ranked = sorted(held, key=lambda o: -(o.ratio or 0.0))
    shown = ranked[:8] if verbose else [o for o in ranked if (o.ratio or 0.0) > _CLOSE]
    if shown:
        used = ", ".join(f"{o.rule} {o.ratio:.2g}" for o in shown)
        page.text(used, label="used / allowed:", label_style="bold")
        page.blank()


def _footer(page: Page, report: Report, verdict: Verdict) -> None:
    found = verdict.severities
    page.text(
        f"{plural(found['error'], 'error')}, {plural(found['warning'], 'warning')}, {plural(found['note'], 'note')}; "
        f"{plural(len(report.runs), 'run')} with {plural(report.calls, 'generate() call')}, "
        f"{report.seconds:.1f} s, of which {report.generate_seconds:.1f} s in the model"
    )
    page.text(counted(verdict), label=f"{plural(len(report.outcomes), 'rule')}:", label_style="bold")
    if verdict.failed:
        page.text("; ".join(verdict.reasons), label="FAILED:", label_style="bold red")
    else:
        page.line(("CLEAN", "bold green"))
