"""What a note says about a run, beside its baseline: outcomes, ratios, failures, records."""

import math
from collections.abc import Sequence

from fmcheck.experiment.header import Header
from fmcheck.experiment.markdown import inline, table
from fmcheck.experiment.record import Judged, RunRecord
from fmcheck.experiment.words import Say

__all__ = ["gate", "metrics"]

_RATIOS = 5
_UNKNOWN = "-"


def metrics(header: Header, run: RunRecord, baseline: RunRecord | None, say: Say) -> list[str]:
    """The section in Markdown: counts, the largest ratios, the failed rules, records; a column for every run."""
    runs = [run] if baseline is None else [run, baseline]
    columns = [say("this run"), say("baseline")][: len(runs)]
    counts = [_counts(each, say) for each in runs]
    records = [_records(each, say) for each in runs]
    ratios = _ratios(run, baseline)
    return [
        *table([say("metric"), *columns], _side_by_side(counts)),
        "",
        *([*table([f"{say('Largest used / allowed')}: {say('rule')}", *columns], ratios), ""] if ratios else ()),
        f"{say('Failed rules')}:",
        "",
        *_failures(run, baseline, say),
        "",
        *table([say("record"), *columns], [(say("experiment"), header.exp_id, ""), *_side_by_side(records)]),
    ]


def _counts(run: RunRecord, say: Say) -> dict[str, str]:
    findings = {f"{severity}s": count for severity, count in run.severities.items()}
    return {
        say("gate"): gate(run, say),
        **{say(status): str(count) for status, count in {**run.counts, **findings}.items()},
    }


def gate(run: RunRecord, say: Say) -> str:
    """The verdict and its reasons in one line, as text."""
    return ": ".join(filter(None, [say("FAILED"), "; ".join(run.reasons)])) if run.failed else say("clean")


def _records(run: RunRecord, say: Say) -> dict[str, str]:
    return {
        say("subject"): run.subject,
        say("case"): _case(run),
        **{say(name): str(version) for name, version in run.versions.items()},
        say("generate calls"): str(run.generate_calls),
        say("seconds in generate"): f"{run.generate_seconds:.1f}",
        say("seconds in all"): f"{run.seconds:.1f}",
    }


def _case(run: RunRecord) -> str:
    """Every setting of the case; of its prompts the number."""
    prompts = run.case.get("prompts")
    batch = [f"batch {len(prompts)}"] if isinstance(prompts, list) else []
    rest = [f"{key.replace('_', ' ')} {value}" for key, value in run.case.items() if key != "prompts"]
    return ", ".join([*batch, *rest])


def _ratios(run: RunRecord, baseline: RunRecord | None) -> list[tuple[str, ...]]:
    """The rules nearest to their bound, or furthest above it; NaN is as bad as it gets."""

    def badness(outcome: Judged) -> float:
        return math.inf if outcome.ratio is None or math.isnan(outcome.ratio) else outcome.ratio

    measured = sorted((o for o in run.outcomes if o.ratio is not None), key=badness, reverse=True)[:_RATIOS]
    others = {outcome.code: _ratio(outcome.ratio) for outcome in baseline.outcomes} if baseline else {}
    compared = baseline is not None
    return [(o.rule, _ratio(o.ratio), *([others.get(o.code, _UNKNOWN)] if compared else [])) for o in measured]


def _ratio(ratio: float | None) -> str:
    return _UNKNOWN if ratio is None else f"{ratio:.3g}"


def _failures(run: RunRecord, baseline: RunRecord | None, say: Say) -> list[str]:
    here, there = run.with_status("failed"), baseline.with_status("failed") if baseline else {}
    lines = []
    for code, outcome in here.items():
        mark = say("as in the baseline" if code in there else "new")
        lines.append(f"- {inline(outcome.rule)}{f' ({mark})' if baseline else ''}: {inline(outcome.message)}")
    for code, outcome in there.items():
        if code not in here:
            mark = say("failed only in the baseline")
            lines.append(f"- {inline(outcome.rule)} ({mark}): {inline(outcome.message)}")
    return lines or [f"- {say('none')}"]


def _side_by_side(columns: Sequence[dict[str, str]]) -> list[tuple[str, ...]]:
    names = dict.fromkeys(name for column in columns for name in column)
    return [(name, *(column.get(name, _UNKNOWN) for column in columns)) for name in names]
