"""The last part of shrinking: every single thing that could be simpler is tried, so that what stays must be there.

Hypothesis shrinks the choices from which a scenario was drawn. Axes that were forced to coincide share a choice there,
and may keep each other from becoming smaller; here they are apart.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

from fmcheck.scenario import Call, Scenario
from fmcheck.subject import Subject

__all__ = ["polished", "simpler"]


def polished(scenario: Scenario, subject: Subject, fails: Callable[[Scenario], bool]) -> Iterator[Scenario]:
    """Ever simpler failing scenarios; after the last one no single change of :func:`simpler` fails."""
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
        yield from _all_alike(scenario, subject)


def _simpler_calls(call: Call, subject: Subject) -> Iterator[Call]:
    case = call.case
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
    yield from _coinciding(call, subject)
    yield from (call.but(num_steps=steps) for steps in range(1, case.num_steps))
    yield from (call.but(guidance_scale=scale) for scale in _simpler_scales(call, subject))
    yield from (call.but(seed=seed) for seed in (0, 1) if seed < case.seed)
    yield from (call.but(prompts=prompts) for prompts in _simpler_prompts(case.prompts))


def _smaller_sizes(call: Call, subject: Subject) -> list[tuple[int, int]]:
    """Sizes no larger in either side, and smaller in one, by area."""
    height, width, multiple = call.case.height, call.case.width, subject.spec.multiple
    if subject.sizes is not None:
        legal = [(h, w) for h, w in subject.sizes if h <= height and w <= width]
    else:
        legal = [(h, w) for h in range(multiple, height + 1, multiple) for w in range(multiple, width + 1, multiple)]
    smaller = [size for size in legal if size != (height, width)]
    return sorted(smaller, key=lambda size: (size[0] * size[1], max(size), size))


def _coinciding(call: Call, subject: Subject) -> Iterator[Call]:
    """Axes that are equal, made smaller together."""
    case, spec = call.case, subject.spec
    _, h, w = spec.latent_size(case.height, case.width)
    cell = spec.downsampling
    if subject.sizes is not None or spec.multiple != cell:
        return
    for side in range(1, max(h, w)):
        rows = case.prompts[:side] if case.batch in (h, w) else case.prompts
        size = {"height": side * cell if h >= side else case.height, "width": side * cell if w >= side else case.width}
        if h == w:
            yield call.but(prompts=rows, **size)
        elif case.batch == h > side:
            yield call.but(prompts=rows, height=side * cell)
        elif case.batch == w > side:
            yield call.but(prompts=rows, width=side * cell)


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
    first = scenario.calls[0].case
    for name in ("seed", "num_steps", "guidance_scale", "prompts"):
        alike = Scenario(tuple(call.but(**{name: getattr(first, name)}) for call in scenario.calls), scenario.asks)
        cost = [call.cost for call in alike.calls]
        if alike != scenario and cost <= [call.cost for call in scenario.calls]:
            yield alike
