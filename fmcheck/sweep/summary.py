"""Runs summed up: one row for every (steps, scale), with means and standard errors over the prompts."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fmcheck.spec import FlowSpec
from fmcheck.sweep.measuring import Measured
from fmcheck.sweep.settings import Key, Settings, is_off

__all__ = ["Estimate", "Row", "estimate", "rows_of"]


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean over prompts and seeds.

    Attributes:
        mean: of the prompts' means, which are over the seeds.
        error: its standard error, `sd / sqrt(P)` over the P prompts: pictures of one prompt are one cluster, so that
            more seeds never pretend to be more prompts. None for a single prompt.
        prompts: the prompts' means, `[P]`.
    """

    mean: float
    error: float | None
    prompts: list[float]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One setting in numbers.

    Attributes:
        off: whether guidance is off at this scale; `added` when nobody asked for it and it only serves to compare.
        weight: `w` in `v = (1 + w) c - w u`.
        pictures, bad: how many there are, and how many of them hold NaN or infinity; with any, nothing is summed up.
        error: what the runs raised, or "".
        scores: by name; the prompts' means in the order of the sweep's prompts.
        clipped, colour, distance: see :mod:`fmcheck.sweep.measuring`; None where they do not exist.
        growth: RMS of the last state that is seen over that of the first, of each picture.
        norms: `[K + 1]`, mean over the pictures of the RMS of the state before the first step and after every step.
        no_norms: why there are none.
        seconds: median of the calls without the recorder.
    """

    steps: int
    scale: float
    weight: float
    off: bool
    added: bool
    pictures: int
    bad: int
    error: str = ""
    scores: Mapping[str, Estimate]
    clipped: Estimate | None = None
    colour: Estimate | None = None
    distance: Estimate | None = None
    growth: Estimate | None = None
    norms: list[float] | None = None
    no_norms: str = ""
    seconds: float | None = None

    @property
    def setting(self) -> tuple[int, float]:
        return self.steps, self.scale

    @property
    def usable(self) -> bool:
        """Whether it can be compared: its runs ended, and every picture is finite."""
        return not self.error and not self.bad


def rows_of(
    settings: Settings,
    spec: FlowSpec,
    entries: Mapping[Key, Measured],
    errors: Mapping[tuple[int, float], str],
) -> list[Row]:
    """A row for every number of steps and scale, the unguided scale first where it is an extra one."""
    unguided = settings.unguided_scale(spec)
    extra = [] if unguided is None or unguided in settings.scales else [unguided]
    return [
        _row(settings, spec, entries, steps, scale, added=scale in extra, error=errors.get((steps, scale), ""))
        for steps in settings.steps
        for scale in [*extra, *settings.scales]
    ]


def _row(
    settings: Settings,
    spec: FlowSpec,
    entries: Mapping[Key, Measured],
    steps: int,
    scale: float,
    *,
    added: bool,
    error: str,
) -> Row:
    keys = [[Key(steps, scale, seed, b) for b in range(len(settings.batches))] for seed in range(settings.seeds)]
    runs = [[] if error else [entries[key] for key in of_seed] for of_seed in keys]
    flat = [run for of_seed in runs for run in of_seed]
    bad = sum(not good for run in flat for good in run.finite)
    known = {
        "steps": steps,
        "scale": scale,
        "weight": spec.guidance_weight(scale),
        "off": is_off(spec, scale),
        "added": added,
        "pictures": sum(len(run.finite) for run in flat),
        "bad": bad,
        "error": error,
        "seconds": _median([run.seconds for run in flat if run.seconds is not None]),
    }
    if error or bad:
        return Row(**known, scores={})  # type: ignore[arg-type]
    no_norms = next((run.no_norms for run in flat if run.no_norms), "")
    if len({len(run.norms) for run in flat}) > 1:
        no_norms = "the runs differ in their number of steps"
    seen = all(run.norms for run in flat)
    growths = [[_growth(run) for run in of_seed] for of_seed in runs] if seen else []
    grown = all(math.isfinite(value) for of_seed in growths for of_run in of_seed for value in of_run)
    if growths and not grown:
        no_norms = no_norms or "it starts at 0 or overflows, so that its growth is no number"
    # A judge that has changed since the first runs may name its scores differently.
    names = [name for name in flat[0].scores if all(name in run.scores for run in flat)]
    readable = seen and "differ" not in no_norms
    return Row(
        **known,  # type: ignore[arg-type]
        scores={name: _over([[run.scores[name] for run in r] for r in runs]) for name in names},
        clipped=_over([[run.clipped for run in r] for r in runs]),
        colour=_over([[run.colour for run in r] for r in runs]) if all(run.colour for run in flat) else None,
        distance=_over([[run.distance for run in r] for r in runs]) if all(map(_complete, flat)) else None,
        growth=_over(growths) if readable and grown else None,
        norms=_norms(flat) if readable else None,
        no_norms=no_norms,
    )


def _complete(run: Measured) -> bool:
    return bool(run.distance) and None not in run.distance


def _growth(run: Measured) -> list[float]:
    return [last / first if first else math.nan for first, last in zip(run.norms[0], run.norms[-1], strict=True)]


def _norms(runs: Sequence[Measured]) -> list[float]:
    rows = [[value for run in runs for value in run.norms[k]] for k in range(len(runs[0].norms))]
    return [statistics.fmean(values) for values in rows]


def _over(values: Sequence[Sequence[Sequence[float | None]]]) -> Estimate:
    """`[seeds][batches][rows of the batch]` as an estimate over the prompts."""
    by_seed = [[value for batch in of_seed for value in batch] for of_seed in values]
    prompts = [statistics.fmean(v for v in column if v is not None) for column in zip(*by_seed, strict=True)]
    return estimate(prompts)


def estimate(prompts: Sequence[float]) -> Estimate:
    """Mean and standard error of one number a prompt, `[P]`."""
    error = statistics.stdev(prompts) / math.sqrt(len(prompts)) if len(prompts) > 1 else None
    return Estimate(mean=statistics.fmean(prompts), error=error, prompts=list(prompts))


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None
