"""Shrinking by what a scenario means: all that could be simpler is tried, so that what stays must be there.

Hypothesis shrinks the choices from which a scenario was drawn. Axes that were forced to coincide share a choice there,
and may keep each other from becoming smaller; here they are apart.
"""

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from fmcheck.case import Case
from fmcheck.scenario import Call, Scenario
from fmcheck.subject import Subject

__all__ = ["polished", "simpler"]


def polished(
    scenario: Scenario, subject: Subject, fails: Callable[[Scenario], bool], code: str = ""
) -> Iterator[Scenario]:
    """Ever simpler failing scenarios; after the last one no single change of :func:`simpler` fails.

    Args:
        code: of the rule that fails; asked for alone before other ways are tried.
    """
    for candidate in _leaps(scenario, subject, code):
        if candidate != scenario and fails(candidate):
            scenario = candidate
            yield scenario
            # Those that follow keep more.
            break
    # What is made alike can be made different again; no scenario is gone back to.
    seen = {scenario}
    improved = True
    while improved:
        improved = False
        for candidate in simpler(scenario, subject):
            if candidate not in seen and fails(candidate):
                scenario, improved = candidate, True
                seen.add(scenario)
                yield scenario
                break


def _leaps(scenario: Scenario, subject: Subject, code: str) -> Iterator[Scenario]:
    """Large changes that often are all it takes: one call, no other rule asked, everything smallest but one or two."""
    asks = (code,) if code in scenario.asks else ()
    for count in range(3):
        for kept in itertools.combinations(_AXES, count):
            yield Scenario((_least(scenario.last, subject, kept),), asks)
    yield Scenario((scenario.last,), asks)
    yield Scenario(tuple(_least(call, subject, ("size",)) for call in scenario.calls), asks)
    yield Scenario(scenario.calls, asks)


# How many shapes are tried whose axes are smaller together.
_SHAPES = 256
# And how many pairs of steps and one other axis.
_PAIRS = 128
_AXES = ("prompts", "size", "steps", "scale", "seed", "dtype", "kind")


def _least(call: Call, subject: Subject, kept: tuple[str, ...]) -> Call:
    """The smallest call, but for the axes that are kept."""
    multiple, case = subject.spec.multiple, call.case
    sizes = subject.sizes or ((multiple, multiple),)
    size = (case.height, case.width) if "size" in kept else min(sizes, key=lambda size: (size[0] * size[1], size))
    least = Case(
        prompts=case.prompts if "prompts" in kept else case.prompts[:1],
        height=size[0],
        width=size[1],
        num_steps=case.num_steps if "steps" in kept else 1,
        guidance_scale=case.guidance_scale if "scale" in kept else subject.spec.neutral_scale,
        seed=case.seed if "seed" in kept else 0,
        dtype=case.dtype if "dtype" in kept else subject.case.dtype,
        device=case.device,
    )
    return replace(call, case=least) if "kind" in kept else Call(case=least)


def simpler(scenario: Scenario, subject: Subject) -> Iterator[Scenario]:
    """Scenarios that differ in one thing, the simplest first: fewer calls, fewer rules asked, smaller numbers."""
    calls, asks = scenario.calls, scenario.asks
    # Halves, quarters, … of a long history before its single calls.
    width = len(calls) // 2
    while width:
        for place in range(0, len(calls), width):
            rest = calls[:place] + calls[place + width :]
            if rest:
                yield Scenario(rest, asks)
        width //= 2
    for place in range(len(asks)):
        yield Scenario(calls, asks[:place] + asks[place + 1 :])
    for place, call in enumerate(calls):
        for other in _simpler_calls(call, subject):
            yield Scenario((*calls[:place], other, *calls[place + 1 :]), asks)
    if len(calls) > 1:
        yield from _sides_in_common(scenario, subject)
        yield from _all_alike(scenario, subject)


def _simpler_calls(call: Call, subject: Subject) -> Iterator[Call]:
    case = call.case
    if call.kind != "generate":
        yield replace(call, kind="generate")
    if call.tokens != "plain":
        yield replace(call, tokens="plain")
    if call.global_seed:
        yield replace(call, global_seed=0)
    if call.global_seed is not None:
        yield replace(call, global_seed=None)
    if case.dtype != subject.case.dtype:
        yield call.but(dtype=subject.case.dtype)
    for batch in range(1, case.batch):
        yield call.but(prompts=case.prompts[:batch])
    yield from (call.but(height=h, width=w) for h, w in _smaller_sizes(call, subject))
    yield from (call.but(num_steps=steps) for steps in range(1, case.num_steps))
    yield from (call.but(guidance_scale=scale) for scale in _simpler_scales(call, subject))
    yield from (call.but(seed=seed) for seed in (0, 1) if seed < case.seed)
    yield from (call.but(prompts=prompts) for prompts in _simpler_prompts(case.prompts))
    yield from _smaller_together(call, subject)
    yield from _smaller_with_steps(call, subject)


def _smaller_sizes(call: Call, subject: Subject) -> list[tuple[int, int]]:
    """Sizes no larger in either side, and smaller in one, by area."""
    height, width, multiple = call.case.height, call.case.width, subject.spec.multiple
    if subject.sizes is not None:
        legal = [(h, w) for h, w in subject.sizes if h <= height and w <= width]
    else:
        legal = [(h, w) for h in range(multiple, height + 1, multiple) for w in range(multiple, width + 1, multiple)]
    smaller = [size for size in legal if size != (height, width)]
    return sorted(smaller, key=lambda size: (size[0] * size[1], max(size), size))


def _smaller_together(call: Call, subject: Subject) -> Iterator[Call]:
    """Batch, height and width smaller at once, the smallest first: a defect may need two of them to agree."""
    case = call.case
    sizes = [*_smaller_sizes(call, subject), (case.height, case.width)]
    shapes = [(batch, height, width) for batch in range(1, case.batch + 1) for height, width in sizes]
    shapes.sort(key=lambda shape: (math.prod(shape), shape))
    for batch, height, width in shapes[:_SHAPES]:
        if batch < case.batch and (height, width) != (case.height, case.width):
            yield call.but(prompts=case.prompts[:batch], height=height, width=width)


def _smaller_with_steps(call: Call, subject: Subject) -> Iterator[Call]:
    """Steps and one other axis smaller at once: something of length `K` may have met an axis of that length."""
    case = call.case
    others: list[dict[str, Any]] = [{"prompts": case.prompts[:batch]} for batch in range(1, case.batch)]
    others += [{"height": height, "width": width} for height, width in _smaller_sizes(call, subject)]
    pairs = [call.but(num_steps=steps, **other) for steps in range(1, case.num_steps) for other in others]
    yield from sorted(pairs, key=lambda pair: pair.cost)[:_PAIRS]


def _simpler_scales(call: Call, subject: Subject) -> list[float]:
    """Weight 0, then whole numbers near 0, then the number without its fraction."""
    neutral = subject.spec.neutral_scale
    weight = call.case.guidance_scale - neutral
    candidates = [0.0, 1.0, -1.0, 2.0, -2.0, 3.0, float(int(weight)), round(weight, 1), round(weight, 3)]
    return [neutral + c for c in dict.fromkeys(candidates) if _plainness(c) < _plainness(weight)]


def _plainness(weight: float) -> tuple[bool, float, bool]:
    return (weight != int(weight), abs(weight), weight < 0)


def _simpler_prompts(prompts: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """All alike, then each shorter, an empty one last."""
    if len(set(prompts)) > 1:
        yield (min(prompts, key=len),) * len(prompts)
    for row, prompt in enumerate(prompts):
        words = prompt.split()
        for shorter in dict.fromkeys(" ".join(words[:count]) for count in (0, 1, len(words) // 2, len(words) - 1)):
            if len(shorter) < len(prompt):
                yield (*prompts[:row], shorter, *prompts[row + 1 :])


def _all_alike(scenario: Scenario, subject: Subject) -> Iterator[Scenario]:
    """Every call with the seed, the steps, the scale or the prompts of its first: what is equal matters less."""
    cases = [call.case for call in scenario.calls]
    ranks: dict[str, Callable[[Case], Any]] = {
        "seed": lambda case: case.seed,
        "num_steps": lambda case: case.num_steps,
        "guidance_scale": lambda case: _plainness(case.guidance_scale - subject.spec.neutral_scale),
        "prompts": lambda case: (case.batch, sum(map(len, case.prompts))),
    }
    for name, rank in ranks.items():
        value = getattr(cases[0], name)
        alike = Scenario(tuple(call.but(**{name: value}) for call in scenario.calls), scenario.asks)
        # A first one that is larger would undo what has become smaller.
        if alike != scenario and rank(cases[0]) == min(map(rank, cases)):
            yield alike


def _sides_in_common(scenario: Scenario, subject: Subject) -> Iterator[Scenario]:
    """A side that several calls share, smaller in all of them: what is kept under it must be found again."""
    multiple = subject.spec.multiple
    for name in ("height", "width") if subject.sizes is None else ():
        counts = Counter(getattr(call.case, name) for call in scenario.calls)
        for side in (side for side, count in counts.items() if count > 1):
            for smaller in range(multiple, side, multiple):
                changed = {side: {name: smaller}}
                calls = (call.but(**changed.get(getattr(call.case, name), {})) for call in scenario.calls)
                yield Scenario(tuple(calls), scenario.asks)
