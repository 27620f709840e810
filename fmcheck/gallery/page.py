"""The gallery as a table for a README, and as plain data."""

import json
from dataclasses import asdict
from typing import Any

from fmcheck.case import Case
from fmcheck.gallery.exhibit import Exhibit, Gallery
from fmcheck.gallery.intervals import Estimate
from fmcheck.report.json import SCHEMA, finite
from fmcheck.report.layout import Page

__all__ = ["COLUMNS", "gallery_json", "gallery_markdown", "gallery_page", "note", "times"]

# The judge's scores that are shown: the headline, everything right, and background, colour and place right.
COLUMNS = ("score", "full", "basic")
_LABEL = 23


def gallery_markdown(made: Gallery) -> str:
    """A Markdown table, a row an entry."""
    case = made.case
    head = ["defect", *COLUMNS, "score lost", "caught by", ""]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for exhibit in made.exhibits:
        lost = exhibit.lost["score"] if exhibit.lost else None
        cells = [
            exhibit.entry.label,
            *(_percent(exhibit.estimate(name)) for name in COLUMNS),
            _change(lost),
            _catch(exhibit),
            note(exhibit),
        ]
        lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    return "\n".join([*lines, "", _settings(case)]) + "\n"


def _settings(case: Case) -> str:
    return (
        f"{case.batch} held-out prompts, the same noise for every row (seed {case.seed}), {case.num_steps} steps, "
        f"guidance {case.guidance_scale:g}, {case.height}x{case.width}. In brackets 95% intervals: Wilson's for shares "
        "of pictures, Student's t for means and for what they lost to the clean model, paired by prompt. `score`: "
        "share of the attributes that are right; `full`: share of the pictures with all six right; `basic`: with "
        "background, colour and position right. The number of a defect is its line in the development log."
    )


def gallery_page(made: Gallery, *, width: int, written: str) -> Page:
    """A line an entry: label, mean score, what it lost, which rule catches it; and what to make of it."""
    page = Page(width)
    page.line((f"  {'defect':<{_LABEL}} {'score':>5} {'full':>5}  {'lost, 95% interval':<21} caught, x bound", "bold"))
    for exhibit in made.exhibits:
        means = [exhibit.estimate(name) for name in ("score", "full")]
        numbers = " ".join(f"{'–' if mean is None else f'{mean.mean:.2f}':>5}" for mean in means)
        lost = _change(exhibit.lost["score"] if exhibit.lost else None)
        caught = _catch(exhibit).replace(" times its bound", "x")
        line = f"  {exhibit.entry.label:<{_LABEL}} {numbers}  {lost:<21} {caught}"
        page.line((line.rstrip(), "yellow" if exhibit.seen_by("score") is False else ""))
        if note(exhibit):
            page.text(note(exhibit), indent=4, style="dim")
    page.blank()
    page.text(_settings(made.case), style="dim")
    page.blank()
    page.text(written, label="written", label_style="dim")
    return page


def note(exhibit: Exhibit) -> str:
    """What to make of a row: why there is no score, or that the score does not see the defect."""
    if exhibit.trouble:
        raises = " raised " in f" {exhibit.trouble}"
        return f"raises: {exhibit.trouble.partition(' raised ')[2]}" if raises else exhibit.trouble
    if exhibit.seen_by("score") is not False:
        return ""
    if exhibit.changed == 0:
        return "the score cannot see it: the same pictures, bit for bit, at this size"
    assert exhibit.lost is not None
    if exhibit.lost["score"].low > 0:
        return "the score cannot see it: it is even higher"
    return "the score cannot see it: not told from the clean model's"


def times(ratio: float | None) -> str:
    """`96,500 times its bound`, or that the rule holds exactly or not at all."""
    if ratio is None:
        return "exact"
    digits = f"{float(f'{ratio:.3g}'):,.0f}" if 100 <= ratio < 1e6 else f"{ratio:.3g}"
    return f"{digits} times its bound"


def _catch(exhibit: Exhibit) -> str:
    if exhibit.entry.mutant is None:
        return ""
    caught = exhibit.caught
    return f"{caught.code}, {times(caught.ratio)}" if caught else f"not by {exhibit.entry.mutant.caught_by}"


def _percent(estimate: Estimate | None) -> str:
    if estimate is None:
        return "–"
    return f"{estimate.mean:.2f} [{estimate.low:.2f}, {estimate.high:.2f}]"


def _change(estimate: Estimate | None) -> str:
    if estimate is None:
        return "–"
    return f"{estimate.mean:+.2f} [{estimate.low:+.2f}, {estimate.high:+.2f}]"


def gallery_json(made: Gallery) -> str:
    """Everything but the pictures, with the scores of every prompt."""
    exhibits = [_table(exhibit) for exhibit in made.exhibits]
    document = {"schema": SCHEMA, "case": made.case.as_table(), "pictured": made.prompt, "exhibits": exhibits}
    return json.dumps(finite(document), indent=2, ensure_ascii=False)


def _table(exhibit: Exhibit) -> dict[str, Any]:
    estimates = {name: exhibit.estimate(name) for name in exhibit.scores}
    return {
        "name": exhibit.entry.name,
        "label": exhibit.entry.label,
        "defect": exhibit.entry.summary,
        "means": {name: asdict(found) for name, found in estimates.items() if found},
        "lost": {name: asdict(found) for name, found in (exhibit.lost or {}).items()},
        "changed": exhibit.changed,
        "seen_by_score": exhibit.seen_by("score"),
        "caught": asdict(exhibit.caught) if exhibit.caught else None,
        "trouble": exhibit.trouble,
        "note": note(exhibit),
        "scores": {name: [round(value, 6) for value in values] for name, values in exhibit.scores.items()},
    }
