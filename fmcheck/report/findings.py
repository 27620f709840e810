"""One finding in full: property, where, observed against allowed, case, causes, and the command that repeats it."""

import math
import re

from fmcheck.outcome import Outcome
from fmcheck.report.context import Context
from fmcheck.report.groups import Group, group_findings
from fmcheck.report.layout import Page
from fmcheck.report.verdict import plural
from fmcheck.rules import Rule

__all__ = ["STYLES", "cause_lines", "measure", "show_finding", "show_outcome_findings", "where_of"]

STYLES = {"error": "bold red", "warning": "bold yellow", "note": "bold cyan"}
_GROUPS_SHOWN = 4


def show_outcome_findings(page: Page, outcome: Outcome, context: Context, *, full: bool = False) -> None:
    """Every kind of finding of one rule; only the first few unless `full`."""
    groups = group_findings(outcome.findings)
    shown = groups if full else groups[:_GROUPS_SHOWN]
    for group in shown:
        show_finding(page, group, context, outcome)
        page.blank()
    if len(shown) < len(groups):
        left = plural(len(groups) - len(shown), "more kind")
        page.text(f"{outcome.rule.code}: {left} of finding; -v shows them", indent=2, style="dim")
        page.blank()


def show_finding(page: Page, group: Group, context: Context, outcome: Outcome) -> None:
    """One group in the fixed order of a message."""
    first, rule = group.first, outcome.rule
    style = STYLES[first.severity]
    page.line((first.code, style), " ", (rule.name, "bold"), "  ", (first.severity, style))
    page.row("property", rule.summary)
    page.row("where", where_of(group))
    page.row("observed", first.message)
    size = measure(group)
    if size:
        page.row("", size)
    page.row("case", context.shapes(first.case))
    for line in cause_lines(group, rule):
        page.row("cause", line)
    if rule.conventions:
        page.row("declared", context.conventions(rule))
    page.command("repeat", context.rerun_of(first.code))


def where_of(group: Group) -> str:
    """Where the first finding of a group is, and in which runs the others are."""
    text = group.first.where or "over several runs"
    others = len(group.findings) - 1
    if not others:
        return text
    runs = ", ".join(f"{name} ({count})" if count > 1 else name for name, count in group.runs.items())
    return f"{text}; {others} more like it" + (f", in runs {runs}" if len(group.runs) > 1 else "")


def measure(group: Group) -> str:
    """`error 1.02, allowed 3.1e-05: 3.3e+04 times the bound`; empty for an exact property.

    Of several findings that of the one furthest beyond its bound, which need not be the largest error.
    """
    worst = group.worst
    if worst.used is None or worst.allowed is None:
        return ""
    which = "error" if worst is group.first else f"at worst ({worst.where}) error" if worst.where else "at worst error"
    text = f"{which} {worst.used:.3g}, allowed {worst.allowed:.3g}"
    if not worst.ratio or not math.isfinite(worst.ratio):
        return text
    return f"{text}: {worst.ratio:.3g} times the bound"


def cause_lines(group: Group, rule: Rule) -> list[str]:
    """The mistakes that reproduce the observed numbers; without one, how the rule says that it goes wrong."""
    if group.diagnoses:
        return group.diagnoses
    told = re.search(r"How it goes wrong:\s*(.+?)(?:\.\s|\.?$)", " ".join(rule.doc.split("\n\n")[1:2]), re.DOTALL)
    likely = f"likely: {' '.join(told[1].split())}" if told else "none of the known mistakes gives these numbers"
    return [f"{likely} (fmcheck explain {rule.code})"]
