"""The experiment note: Markdown with front matter, from a header and the JSON of a run."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date

from fmcheck.errors import DeclarationError, did_you_mean
from fmcheck.experiment.header import Header
from fmcheck.experiment.markdown import inline, paragraph, quoted, table
from fmcheck.experiment.metrics import gate, metrics
from fmcheck.experiment.record import RunRecord
from fmcheck.experiment.values import clean
from fmcheck.experiment.words import CONCLUSIONS, LANGUAGES, Say, speaker

__all__ = ["CONCLUSIONS", "LANGUAGES", "Setting", "render_note"]

_MOST_SETTINGS = 4
_UNKNOWN = "-"
_PARENTHESES = {"(": ")", "（": "）"}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One thing that the experiment does otherwise; `baseline` is what the baseline has there, empty if not said."""

    name: str
    value: str
    baseline: str = ""

    @classmethod
    def parse(cls, text: str) -> "Setting":
        """`name=value (baseline value)`; the parentheses are optional, and so is the word baseline in them.

        Raises:
            DeclarationError: no `=`, or nothing on one side of it.
        """
        name, equals, rest = (part.strip() for part in clean(text).partition("="))
        value, baseline = _without_baseline(rest)
        if not (equals and name and value):
            raise DeclarationError(f"setting: expected 'name=value (baseline value)'; found {text!r}")
        return cls(name=name, value=value, baseline=baseline)


def _without_baseline(text: str) -> tuple[str, str]:
    """`5e-4 (1e-4)` as value and baseline. `relu(6)` and `(0.9, 0.99)` are values, without one."""
    depth = 0
    for place in range(len(text) - 1, 0, -1):
        if text[place] in _PARENTHESES.values():
            depth += 1
        elif text[place] in _PARENTHESES:
            depth -= 1
        if depth == 0:
            if text[place] in _PARENTHESES and (text[place - 1] == " " or text[place] == "（"):
                inner = text[place + 1 : -1].strip()
                return text[:place].strip(), re.sub(r"^baseline\b[\s:=]*", "", inner)
            break
    return text, ""


def render_note(
    header: Header,
    run: RunRecord,
    *,
    conclusion: str,
    baseline: RunRecord | None = None,
    settings: Sequence[Setting] = (),
    goal: str = "",
    next_step: str = "",
    language: str = "both",
    links: Iterable[str] = (),
    today: date | None = None,
) -> str:
    """The note as Markdown.

    Nothing is concluded here: `conclusion` is the author's, `keep`, `reject` or `retest`. Without `settings` the
    header's knobs stand there, without `goal` its purpose. `goal` and `next_step` are Markdown.
    `language` is that of the headings and labels: `en`, `zh` or `both`.

    Raises:
        DeclarationError: another conclusion or language, more than four settings.
    """
    if conclusion not in CONCLUSIONS:
        raise DeclarationError(
            f"conclusion: expected one of {', '.join(CONCLUSIONS)}; found {conclusion!r}"
            f"{did_you_mean(conclusion, CONCLUSIONS)}"
        )
    if len(settings) > _MOST_SETTINGS:
        raise DeclarationError(
            f"settings: expected at most {_MOST_SETTINGS}; found {len(settings)}: "
            "an experiment that changes more cannot say what its result is due to"
        )
    say = speaker(language)
    parts = {
        "Goal": [goal.strip() or paragraph(header.purpose)],
        "Settings": _settings(settings, header, say),
        "Metrics and records": metrics(header, run, baseline, say),
        "Conclusion": [f"**{say(conclusion)}**", "", f"{say('gate')}: {inline(gate(run, say))}"],
        "Next step": [next_step.strip() or f"({say('to be written')})"],
        "Raw notes": ["```text", *header.as_lines(), "```"],
    }
    lines = _front_matter(header, links, today or date.today())
    for title, body in parts.items():
        lines += ["", f"## {say(title)}", "", *body]
    return "\n".join(lines) + "\n"


def _front_matter(header: Header, links: Iterable[str], today: date) -> list[str]:
    return [
        "---",
        f"title: {quoted(header.title)}",
        f"created: {today.isoformat()}",
        f"updated: {today.isoformat()}",
        f"origin: week-{today.isocalendar().week:02d}",
        "type: experiment",
        "status: draft",
        f"tags: {quoted(list(header.tags))}",
        f"links: {quoted(list(links))}",
        "---",
    ]


def _settings(settings: Sequence[Setting], header: Header, say: Say) -> list[str]:
    if not settings:
        return [f"{say('the knobs that differ')}:", "", *(f"- {inline(knob)}" for knob in header.key_diffs)]
    rows = [(setting.name, setting.value, setting.baseline or _UNKNOWN) for setting in settings]
    return table([say("setting"), say("this run"), say("baseline")], rows)
