"""What a sweep found, as text and as JSON."""

import json
from dataclasses import asdict

from fmcheck.report.context import versions
from fmcheck.report.json import SCHEMA, finite
from fmcheck.report.layout import Page
from fmcheck.report.verdict import plural
from fmcheck.sweep import Sweep
from fmcheck.sweep.recommend import CLIPPED_FLOOR, FACTOR, Comparison, Observation
from fmcheck.sweep.summary import Estimate, Row

__all__ = ["sweep_json", "sweep_page"]

_SCORE = 13


def sweep_page(sweep: Sweep, *, width: int, written: list[str]) -> Page:
    """A row a setting, the other scores, what could not be measured, and the advice; fits 80 columns."""
    page = Page(width)
    page.line(("subject", "dim"), "  ", (sweep.target, "bold"))
    page.text(_what(sweep))
    page.blank()
    _table(page, sweep)
    _scores(page, sweep)
    _legend(page, sweep)
    _troubles(page, sweep.rows)
    _advice(page, sweep)
    if written:
        page.blank()
        page.text(", ".join(written), label="written", label_style="dim")
    return page


def _what(sweep: Sweep) -> str:
    settings, case, spec = sweep.settings, sweep.settings.case, sweep.subject.spec
    formula = "(1 + w) c - w u, off at 0" if spec.guidance_formula == "cond_plus" else "u + s (c - u), off at 1"
    if spec.guidance_layout == "embedded":
        formula = "told to the network"
    resumed = f"; {plural(sweep.found_before, 'run')} found in {sweep.store.folder}" if sweep.found_before else ""
    return (
        f"{case.height}x{case.width}, {plural(len(settings.prompts), 'prompt')} x {plural(settings.seeds, 'seed')} "
        f"from {case.seed}, {case.dtype}, {case.device}; scale: {formula}{resumed}"
    )


def _headline(sweep: Sweep) -> str | None:
    return None if sweep.subject.judge is None else sweep.subject.judge.headline


def _table(page: Page, sweep: Sweep) -> None:
    name = _headline(sweep)
    title = "" if name is None else f"{name[:_SCORE]:>{_SCORE}} "
    measures = f"{'distance':>9} {'clipped':>8} {'colour':>7} {'state':>7} {'s/call':>8}"
    page.line((f"  {'steps':>5} {'scale':>8} {title}{measures}", "bold"))
    for row in sweep.rows:
        mark, style = " ", ""
        if row.setting == sweep.advice.chosen:
            mark, style = ">", "green"
        scale = f"{row.scale:g}{' off' if row.off else ''}"
        start = f"{mark} {row.steps:>5} {scale:>8} "
        if not row.usable:
            page.line((f"{start}{_unusable(row)}", "red"))
            continue
        score = "" if name is None else f"{_with_error(row.scores.get(name)):>{_SCORE}} "
        growth = "-" if row.growth is None else f"x{row.growth.mean:.2f}"
        seconds = "-" if row.seconds is None else f"{row.seconds:.3g}"
        page.line(
            (
                f"{start}{score}{_number(row.distance):>9} {_percent(row.clipped):>8} {_number(row.colour, 2):>7} "
                f"{growth:>7} {seconds:>8}",
                style,
            )
        )
    page.blank()


def _unusable(row: Row) -> str:
    return "raised, see below" if row.error else f"not finite: {row.bad} of {plural(row.pictures, 'picture')}"


def _with_error(found: Estimate | None) -> str:
    if found is None:
        return "-"
    return f"{found.mean:.3f}" if found.error is None else f"{found.mean:.3f} ±{found.error:.3f}"


def _number(found: Estimate | None, digits: int = 3) -> str:
    return "-" if found is None else f"{found.mean:.{digits}f}"


def _percent(found: Estimate | None) -> str:
    return "-" if found is None else f"{100 * found.mean:.1f}%"


def _scores(page: Page, sweep: Sweep) -> None:
    """The judge's other scores, as many beside each other as fit."""
    rows = [row for row in sweep.rows if row.usable]
    names = [name for name in dict.fromkeys(n for row in rows for n in row.scores) if name != _headline(sweep)]
    fit = max(1, (page.width - 16) // (_SCORE + 1))
    for first in range(0, len(names), fit):
        part = names[first : first + fit]
        page.line((f"  {'steps':>5} {'scale':>8} " + " ".join(f"{name[:_SCORE]:>{_SCORE}}" for name in part), "bold"))
        for row in rows:
            values = " ".join(f"{_with_error(row.scores.get(name)):>{_SCORE}}" for name in part)
            page.line(f"  {row.steps:>5} {row.scale:>8g} {values}")
        page.blank()


def _legend(page: Page, sweep: Sweep) -> None:
    rows = [row for row in sweep.rows if row.usable]
    lines = [("distance", "RMS from the picture without guidance, same noise and steps, in units of the image range")]
    lines.append(("clipped", "values within 1% of the ends of the image range, or beyond"))
    lines.append(("colour", "mean of max - min of red, green and blue, in units of the range"))
    lines.append(("state", "RMS of the state after the last step over that before the first"))
    if any(row.scores for row in rows):
        lines.insert(0, ("±", "standard error over prompts, whose seeds are averaged"))
    for label, text in lines:
        page.text(text, indent=2, label=f"{label:<8}", label_style="dim", style="dim")
    page.blank()


def _troubles(page: Page, rows: list[Row]) -> None:
    reasons: dict[str, list[Row]] = {}
    for row in rows:
        if row.error:
            reasons.setdefault(row.error, []).append(row)
        elif row.bad:
            reasons.setdefault("NaN or infinity in the pictures, so nothing is summed up", []).append(row)
        elif row.no_norms:
            reasons.setdefault(f"state: {row.no_norms}", []).append(row)
        if row.usable and row.distance is None:
            reasons.setdefault("distance: there is no unguided picture to compare with", []).append(row)
    for reason, places in reasons.items():
        where = "everywhere" if len(places) == len(rows) else _places(places)
        page.text(f"{reason} ({where})", style="yellow")
    if reasons:
        page.blank()


def _places(rows: list[Row]) -> str:
    """`scale 0 at 8 and 16 steps, scale 6 at 8 steps`."""
    steps: dict[float, list[int]] = {}
    for row in rows:
        steps.setdefault(row.scale, []).append(row.steps)
    return ", ".join(f"scale {scale:g} at {' and '.join(map(str, found))} steps" for scale, found in steps.items())


def _advice(page: Page, sweep: Sweep) -> None:
    advice = sweep.advice
    if advice.kind == "recommended" and advice.chosen is not None:
        steps, scale = advice.chosen
        page.text(f"scale {scale:g} at {steps} steps: {advice.why}", label="recommended:", label_style="bold green")
    else:
        page.text(advice.why, label="no recommendation:", label_style="bold yellow")
    for comparison in advice.comparisons:
        page.text(_compared(comparison), indent=2, style="dim")
    for observation in advice.observations:
        page.text(_observed(observation), indent=2)


def _observed(observation: Observation) -> str:
    within = f"within {FACTOR:g} times the unguided ones (clipped also below {CLIPPED_FLOOR:.0%})"
    if observation.scale is None:
        return f"{observation.steps} steps: at no scale do clipped values and state sizes stay {within}"
    return f"{observation.steps} steps: up to scale {observation.scale:g}, clipped values and state sizes stay {within}"


def _compared(comparison: Comparison) -> str:
    known = "" if comparison.half_width is None else f" ±{comparison.half_width:.3f}"
    said = "worse" if comparison.worse else "not told apart"
    other = f"scale {comparison.scale:g} at {comparison.steps} steps"
    return f"best minus {other}: {comparison.difference:+.3f}{known}  {said}"


def sweep_json(sweep: Sweep) -> str:
    """All numbers, those of every prompt too. Infinity and NaN become strings."""
    settings, spec = sweep.settings, sweep.subject.spec
    advice = sweep.advice
    document = {
        "schema": SCHEMA,
        "subject": sweep.target,
        "identity": sweep.store.identity,
        "versions": versions(settings.case.device),
        "conventions": spec.as_table(),
        "case": settings.case.as_table(),
        "scales": list(settings.scales),
        "num_steps": list(settings.steps),
        "prompts": list(settings.prompts),
        "seeds": [
            {"seed": seed, "batch": batch, "generator": settings.seed_of(seed, batch)}
            for seed in range(settings.seeds)
            for batch in range(len(settings.batches))
        ],
        "unguided_scale": settings.unguided_scale(spec),
        "headline": _headline(sweep),
        "rows": [asdict(row) for row in sweep.rows],
        "advice": asdict(advice),
        "found_before": sweep.found_before,
        "seconds": sweep.seconds,
    }
    return json.dumps(finite(document), indent=2, ensure_ascii=False, allow_nan=False)
