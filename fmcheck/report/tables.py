"""Tables: the rules there are, and the runs that were made."""

from collections.abc import Iterable

from fmcheck.case import Case
from fmcheck.outcome import Report
from fmcheck.report.context import Context
from fmcheck.report.layout import Page
from fmcheck.report.verdict import plural
from fmcheck.rules import Rule, family_title

__all__ = ["rules_page", "show_runs"]


def rules_page(rules: Iterable[Rule], *, width: int) -> Page:
    """Code, name and what must hold, by family."""
    page = Page(width)
    family = ""
    for rule in rules:
        if rule.family != family:
            if family:
                page.blank()
            family = rule.family
            page.line((family, "bold"), f"  {family_title(rule)}")
        page.text(rule.summary, indent=2, label=f"{rule.code} {rule.name:<24}", label_style="bold")
    return page


def show_runs(page: Page, report: Report, context: Context) -> None:
    """Every run that was made: its name, how its case differs from the native one, and the rules that wanted it."""
    page.line(("runs", "bold"), f" ({len(report.runs)} made, shared by {plural(len(report.outcomes), 'rule')})")
    longest = max((len(name) for name in report.runs), default=0)
    for name, codes in report.runs.items():
        case = _difference(context.cases.get(name), context.case)
        page.text(f"{case}; {_wanted(codes)}", indent=2, label=f"{name:<{longest}}", label_style="bold")
    page.text(
        f"{plural(report.calls, 'generate() call')} in all: every run is made once, however many rules want it; "
        "a loss run calls none",
        indent=2,
        style="dim",
    )
    page.blank()


def _difference(case: Case | None, native: Case) -> str:
    if case is None or case == native:
        return "native case"
    theirs, ours = case.as_table(), native.as_table()
    changed = {key: value for key, value in theirs.items() if value != ours[key] and key not in ("height", "width")}
    words = [f"{case.height}x{case.width}"] if (case.height, case.width) != (native.height, native.width) else []
    for key, value in changed.items():
        if key == "prompts":
            words.append("other prompts" if len(value) == native.batch else f"batch {len(value)}")
        else:
            words.append(f"{key.replace('num_steps', 'steps').replace('_scale', '')} {value}")
    return ", ".join(words)


def _wanted(codes: tuple[str, ...]) -> str:
    if not codes:
        return "wanted by another run"
    return f"for {' '.join(codes)}" if len(codes) <= 6 else f"for {len(codes)} rules, {codes[0]} to {codes[-1]}"
