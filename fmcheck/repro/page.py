"""A replay in a few lines of text, for terminals and for tests that fail."""

from collections.abc import Sequence

from fmcheck.experiment import clean
from fmcheck.outcome import Finding
from fmcheck.report.layout import Page, plain
from fmcheck.repro.replayed import Replayed

__all__ = ["replay_page", "replay_text"]

_STYLES = {
    "reproduced": "bold red",
    "fixed": "bold green",
    "different failure": "bold magenta",
    "not judged": "bold yellow",
}


def replay_page(done: Replayed, file: str, width: int) -> Page:
    """Status, rule, what was compared, the finding, the scenario, and what differs from the recording machine.

    Texts of the file are shown without control characters: a terminal obeys those.
    """
    page, reproduction = Page(width), done.reproduction
    rule = f"{reproduction.code} {clean(reproduction.finding.name)}"
    page.line((done.status, _STYLES[done.status]), "  ", (rule, "bold"), "  ", (clean(file), "dim"))
    page.row("by", clean(done.how))
    page.row("subject", clean(reproduction.target))
    _rows(page, "case", str(reproduction.scenario).splitlines())
    _show_finding(page, "recorded", reproduction.finding)
    if done.finding is not None and done.finding.message != reproduction.finding.message:
        _show_finding(page, "now", done.finding)
    _rows(page, "here", done.differences)
    return page


def replay_text(done: Replayed, file: str, width: int = 100) -> str:
    """The page as plain text."""
    return plain([replay_page(done, file, width)])


def _rows(page: Page, label: str, lines: Sequence[str]) -> None:
    """Lines of which only the first is labelled."""
    for place, line in enumerate(lines):
        page.row("" if place else label, clean(line))


def _show_finding(page: Page, label: str, finding: Finding) -> None:
    page.row(label, clean(f"{finding.code} {finding.message}"))
    if finding.used is not None and finding.allowed is not None:
        page.row("", f"error {finding.used:.3g}, allowed {finding.allowed:.3g}")
    if finding.where:
        page.row("where", clean(finding.where))
    if finding.diagnosis:
        page.row("cause", clean(finding.diagnosis))
