"""The page of a rule: its docstring with the four parts set apart."""

import re

from fmcheck.report.layout import Page
from fmcheck.rules import Rule

__all__ = ["explain_page", "parts_of"]

_LABEL = re.compile(r"(How it goes wrong|Checked|Fix|Source):\s*")


def parts_of(rule: Rule) -> list[tuple[str, str]]:
    """`(title, text)` of every part of the documentation: what must hold, how it goes wrong, checked, fix, source."""
    parts: list[tuple[str, str]] = [("What must hold", rule.summary)]
    for paragraph in rule.doc.split("\n\n")[1:]:
        text = " ".join(paragraph.split())
        pieces = _LABEL.split(text)
        if pieces[0].strip():
            parts.append(("", pieces[0].strip()))
        parts.extend(zip(pieces[1::2], (piece.strip() for piece in pieces[2::2]), strict=True))
    return parts


def explain_page(rule: Rule, *, width: int) -> Page:
    """Code, name, the parts of the documentation, and what the rule needs to judge."""
    page = Page(width)
    whose = f"  rule of {rule.package}" if rule.package else ""
    page.line((rule.code, "bold red"), " ", (rule.name, "bold"), whose)
    for title, text in parts_of(rule):
        page.blank()
        if title:
            page.line((title, "bold"))
        page.text(text[:1].upper() + text[1:], indent=2)
    page.blank()
    page.line(("Needs", "bold"))
    page.text(f"{', '.join(rule.needs) or 'nothing'}; {_kind(rule)}", indent=2)
    return page


def _kind(rule: Rule) -> str:
    if rule.wishes is not None:
        return "compares several runs"
    return f"judges every plain {' and '.join(rule.kinds)} run"
