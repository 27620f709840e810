"""Which setting to use, or that the data cannot tell.

The setting with the best mean headline score is compared with every other one by the paired differences over prompts
(same prompts, same noise, seeds averaged): `mean +- t sd / sqrt(P)`. The t is that of a 95% interval for *every* pair
of settings at once (Bonferroni over all `m (m - 1) / 2` pairs), since the best was chosen after looking: when all
settings are equally good, the chance that any is called worse is at most 5%.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Literal

from fmcheck.judge import Judge
from fmcheck.sweep.summary import Estimate, Row
from fmcheck.tolerance import paired_half_width

__all__ = ["ALPHA", "FACTOR", "Advice", "Comparison", "Observation", "advise", "compared"]

ALPHA = 0.05
_LEVEL = f"{1 - ALPHA:.0%}, all pairs at once"
# Distances and shares are told with so many digits. Rounding errors beyond them are no reason to prefer a setting.
_DIGITS = 3
# A picture without guidance may clip nothing at all: a factor of nothing would allow nothing.
FACTOR, CLIPPED_FLOOR = 1.5, 0.01
# Between means of the same numbers in another order.
_NO_DIFFERENCE = 1e-12


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The best setting against another one: `difference` is best minus other, with a simultaneous 95% interval.

    `half_width` is None where a single prompt, or equal differences of too few prompts, give no interval.
    """

    steps: int
    scale: float
    difference: float
    half_width: float | None
    worse: bool


@dataclass(frozen=True, kw_only=True)
class Observation:
    """For one number of steps, the scale up to which nothing ran away; None when even at the smallest it did."""

    steps: int
    scale: float | None


@dataclass(frozen=True, kw_only=True)
class Advice:
    """What the sweep says about the scale.

    Attributes:
        kind: `recommended`, `cannot tell`, or `no judge`.
        best: (steps, scale) with the best mean headline score, which may be so by luck.
        chosen: the recommended one: of the best and those that are not told apart from it, the one that changes the
            unguided pictures least.
        why: the reasons, in a sentence or two.
        comparisons: the best against every other setting.
        observations: without a judge, see :class:`Observation`.
    """

    kind: Literal["recommended", "cannot tell", "no judge"]
    why: str
    best: tuple[int, float] | None = None
    chosen: tuple[int, float] | None = None
    comparisons: tuple[Comparison, ...] = ()
    observations: tuple[Observation, ...] = ()


def compared(best: Row, other: Row, best_score: Estimate, score: Estimate, pairs: int) -> Comparison:
    """One paired comparison, at a level that holds for all `pairs` together."""
    differences = [a - b for a, b in zip(best_score.prompts, score.prompts, strict=True)]
    mean, width = statistics.fmean(differences), paired_half_width(differences, ALPHA / pairs)
    # Not "> 0" alone: differences of rounding errors are equal, too.
    worse = width is not None and mean > max(width, _NO_DIFFERENCE)
    return Comparison(steps=other.steps, scale=other.scale, difference=mean, half_width=width, worse=worse)


def advise(rows: Sequence[Row], judge: Judge | None) -> Advice:
    """The advice that follows from the rows."""
    if judge is None:
        return _without_judge(rows)
    name = judge.headline
    rows = [row for row in rows if row.usable and not row.added and name in row.scores]
    if len(rows) < 2:
        return Advice(kind="cannot tell", why=f"fewer than two settings have a score {name!r}: nothing to compare")
    best = max(rows, key=lambda row: row.scores[name].mean)
    pairs = len(rows) * (len(rows) - 1) // 2
    others = [row for row in rows if row is not best]
    comparisons = tuple(compared(best, row, best.scores[name], row.scores[name], pairs) for row in others)
    alike = [row for row, comparison in zip(others, comparisons, strict=True) if not comparison.worse]
    if len(alike) == len(others):
        return Advice(
            kind="cannot tell", best=best.setting, why=_unclear(best, name, comparisons), comparisons=comparisons
        )
    chosen, how = _mildest([best, *alike])
    where = "there" if chosen is best else f"at {shown(best)}"
    why = f"{name} is highest {where} ({best.scores[name].mean:.3f})"
    if not alike:
        why += f", and every other setting is worse by more than chance ({_LEVEL})"
    else:
        worse = len(others) - len(alike)
        why += f", and {worse} of {len(others)} other settings are worse by more than chance ({_LEVEL})"
        why += f". Not told apart from the best: {', '.join(map(shown, alike))}"
        why += f". Of these and the best, {shown(chosen)} {how}"
    return Advice(kind="recommended", best=best.setting, chosen=chosen.setting, why=why, comparisons=comparisons)


def shown(row: Row | Comparison) -> str:
    """`scale 3 at 8 steps`."""
    return f"scale {row.scale:g} at {row.steps} steps"


def _mildest(rows: list[Row]) -> tuple[Row, str]:
    """The one that changes the unguided picture least, or clips least where there is none; and how to say so.

    Where several do, the one with the fewest steps.
    """
    if len(rows) == 1:
        return rows[0], "is the best"
    if all(row.distance is not None for row in rows):
        return _least(rows, lambda row: row.distance), "changes the unguided pictures least"
    return _least(rows, lambda row: row.clipped), "drives the fewest values to the ends of the image range"


def _least(rows: list[Row], measure: Callable[[Row], Estimate | None]) -> Row:
    def size(row: Row) -> tuple[float, int, float]:
        found = measure(row)
        return (math.inf if found is None else round(found.mean, _DIGITS), row.steps, abs(row.weight))

    return min(rows, key=size)


def _unclear(best: Row, name: str, comparisons: Sequence[Comparison]) -> str:
    prompts = len(best.scores[name].prompts)
    if prompts < 2:
        return "the data cannot tell: with one prompt nothing is known of the spread between prompts"
    said = (
        f"the data cannot tell: {name} is highest at {shown(best)} ({best.scores[name].mean:.3f}), but no other "
        f"setting is worse by more than chance ({_LEVEL}, {prompts} prompts)"
    )
    # Equal differences have no width, and tell nothing of how many prompts would do.
    widths = [c.half_width / c.difference for c in comparisons if c.half_width and c.difference > _NO_DIFFERENCE]
    if widths:
        needed = prompts * min(widths) ** 2
        said += f"; with the same spread about {_rounded(needed)} prompts would show the clearest of these differences"
    return said


def _rounded(count: float) -> str:
    """Two digits: it is an extrapolation."""
    digits = max(0, math.floor(math.log10(count)) - 1)
    return f"{math.ceil(count / 10**digits) * 10**digits:,}"


def _without_judge(rows: Sequence[Row]) -> Advice:
    counts = dict.fromkeys(row.steps for row in rows if row.off and row.usable)
    found = tuple(_observed(steps, rows) for steps in counts)
    why = "the subject has no judge, so nothing here says which scale makes better pictures"
    if not found:
        return Advice(kind="no judge", why=f"{why}, and there is no unguided picture to compare with")
    return Advice(kind="no judge", why=why, observations=found)


def _observed(steps: int, rows: Sequence[Row]) -> Observation:
    mine = [row for row in rows if row.steps == steps]
    base = next(row for row in mine if row.off and row.usable)
    asked = sorted((row for row in mine if not row.added), key=lambda row: abs(row.weight))
    held = [row.scale for row in takewhile(lambda row: row.usable and _stays(row, base), asked)]
    return Observation(steps=steps, scale=held[-1] if held else None)


def _stays(row: Row, base: Row) -> bool:
    """Whether clipped values and the state after every step stay within the factor of the unguided ones."""
    if row.clipped is None or base.clipped is None:
        return False
    if row.clipped.mean > max(FACTOR * base.clipped.mean, CLIPPED_FLOOR):
        return False
    if row.norms is None or base.norms is None:
        return True
    return all(mine <= FACTOR * theirs for mine, theirs in zip(row.norms, base.norms, strict=False))
