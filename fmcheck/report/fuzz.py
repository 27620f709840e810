"""What a campaign says: each failure as soon as it is known, the shrunk one, and at the end what was looked at."""

import json
from collections.abc import Iterable
from typing import Any

from fmcheck.fuzz import Find, FuzzReport
from fmcheck.report.context import Context, versions
from fmcheck.report.findings import STYLES, cause_lines, measure
from fmcheck.report.groups import group_findings
from fmcheck.report.json import finding_table, finite
from fmcheck.report.layout import Page
from fmcheck.report.verdict import plural, some
from fmcheck.rules import all_rules
from fmcheck.scenario import Scenario
from fmcheck.trial import MEMORY

__all__ = ["SCHEMA", "find_page", "first_page", "fuzz_json", "fuzz_page"]

SCHEMA = 1


def first_page(found: Find, width: int) -> Page:
    """One failure as found, before it is shrunk."""
    page = Page(width)
    _title(page, found, f"found by example {found.example}" if found.example else "from the example database")
    page.row("observed", found.findings[0].message)
    _scenario(page, "case", found.first)
    page.blank()
    return page


def find_page(found: Find, width: int, files: Iterable[str] = ()) -> Page:
    """One failure after shrinking: the smallest scenario that shows it, the cause, and how to see it again."""
    page = Page(width)
    rule = next((rule for rule in all_rules() if rule.code == found.code), None)
    group = group_findings(found.findings)[0]
    _title(page, found, "smallest case" if found.shrunk else "smallest case so far (the clock ended the shrinking)")
    if rule is not None:
        page.row("property", rule.summary)
    if group.first.where:
        page.row("where", group.first.where)
    page.row("observed", group.first.message)
    if size := measure(group):
        page.row("", size)
    _scenario(page, "case", found.scenario)
    _prompts(page, found.scenario)
    for line in cause_lines(group, rule) if rule is not None else []:
        page.row("cause", line)
    for file in files:
        page.command("replay", f"fmcheck replay {file}")
    page.blank()
    return page


def _title(page: Page, found: Find, what: str) -> None:
    first = found.findings[0]
    page.line((found.code, STYLES[first.severity]), " ", (first.name, "bold"), "  ", (what, "dim"))


def _scenario(page: Page, label: str, scenario: Scenario) -> None:
    for number, line in enumerate(str(scenario).splitlines()):
        page.row(label if number == 0 else "", line)


def _prompts(page: Page, scenario: Scenario) -> None:
    prompts = list(dict.fromkeys(prompt for call in scenario.calls for prompt in call.case.prompts))
    page.row("prompts", ", ".join(repr(prompt) for prompt in prompts))


def fuzz_page(report: FuzzReport, width: int, *, seed: int, verbose: bool = False) -> Page:
    """The end of a campaign: what was looked at, and the verdict."""
    page = Page(width)
    for axis, text in report.coverage.lines():
        if verbose or axis in _ALWAYS:
            page.row(axis, text)
    unjudged = [rule.code for rule in all_rules() if rule.code not in report.coverage.judged]
    if unjudged:
        page.row("no rule", f"{some(unjudged)} never had anything to compare")
    for reason, count in report.refused.items():
        page.row("refused", f"{count} times: {reason}")
    for finding in report.unsteady:
        page.row("unsteady", f"{finding}; once, and never again on a new model object")
    page.blank()
    page.text(
        f"{plural(report.examples, 'example')}, {plural(report.runs - report.examples, 'run')} to confirm and shrink, "
        f"{report.seconds:.1f} s, seed {seed}"
    )
    if report.interrupted:
        page.text("interrupted; what was found until then stands", style="bold yellow")
    failed = [found.code for found in report.finds if found.code != MEMORY]
    if failed:
        page.text(f"{plural(len(failed), 'rule')} broken ({some(failed)})", label="FAILED:", label_style="bold red")
    else:
        page.line(("CLEAN", "bold green") if not report.interrupted else "nothing found so far")
    return page


_ALWAYS = ("calls", "batch", "aspect", "steps", "guidance", "dtype", "kind", "coincidences")


def fuzz_json(report: FuzzReport, context: Context, *, seed: int, files: dict[str, list[str]]) -> str:
    """The same as one JSON document."""
    document = {
        "schema": SCHEMA,
        "subject": context.target,
        "versions": versions(context.case.device),
        "seed": seed,
        "examples": report.examples,
        "runs": report.runs,
        "seconds": report.seconds,
        "finds": [_find(found, files.get(found.code, [])) for found in report.finds],
        "refused": report.refused,
        "unsteady": [str(finding) for finding in report.unsteady],
        "coverage": dict(report.coverage.lines()),
        "judged": dict(report.coverage.judged),
    }
    return json.dumps(finite(document), indent=2, ensure_ascii=False, allow_nan=False)


def _find(found: Find, files: list[str]) -> dict[str, Any]:
    return {
        "code": found.code,
        "name": found.findings[0].name,
        "example": found.example,
        "shrunk": found.shrunk,
        "scenario": found.scenario.as_table(),
        "first": found.first.as_table(),
        "findings": [finding_table(finding) for finding in found.findings],
        "files": files,
    }
