"""Two runs of one case side by side: how far apart every recorded tensor is, and the first one where they part."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from fmcheck.errors import missing
from fmcheck.plan import Run
from fmcheck.record.trace import Call
from fmcheck.rules.evidence import apart, bitwise, by_step, exact, require, within
from fmcheck.rules.fm8_mistakes import mistake
from fmcheck.rules.registry import Check
from fmcheck.subject import ENTRIES
from fmcheck.tensors import all_finite, describe
from fmcheck.tolerance.devices import device_bound, event_bound, seen_eps

__all__ = ["Event", "agree", "differ", "eps_of", "events", "require_same_weights", "same_bits"]


@dataclass(frozen=True)
class Event:
    """One recorded tensor of two runs.

    Attributes:
        name: `the output of velocity[2]`.
        call: of the reference; None for the result.
        made: whether the call made it; what a call is given is made by what lies between the calls.
        first, second: the tensor in the reference and in the other run.
        apart: `rms(second - first) / rms(first)`.
        before: the largest such difference of all earlier events.
        drift: bound on what may have added up, if every pass is correct.
        allowed: bound on `apart`, see :func:`fmcheck.tolerance.devices.event_bound`.
    """

    name: str
    call: Call | None
    made: bool
    first: Tensor = field(repr=False)
    second: Tensor = field(repr=False)
    apart: float
    before: float
    drift: float
    allowed: float

    @property
    def leap(self) -> float:
        """How much further apart than anything before."""
        return self.apart - self.before


def eps_of(*runs: Run) -> float:
    """Of the coarsest arithmetic that shows in some runs."""
    return max(seen_eps(run.case.torch_dtype, run.trace) for run in runs)


def require_same_weights(base: Run, other: Run) -> None:
    """Two models can only be compared where one holds the numbers of the other, up to their dtypes."""
    if base.trace.found is not None and other.trace.found is not None:
        name = base.trace.found.unlike(other.trace.found)
        where = f"in {other.case.dtype} on {other.case.device}"
        require(name is None, f"the model {where} has other weights: {name} is not the native one, rounded")


def differ(reference: Run, other: Run) -> bool:
    """Whether any recorded tensor of two runs differs in a bit; two runs that are the same in all say nothing."""
    return any(not bitwise(event.first, event.second) for event in events(reference, other, eps_of(reference, other)))


def agree(reference: Run, other: Run, how: str, eps: float | None = None) -> Iterator[Check]:
    """Every recorded tensor of the other run against the reference, in their order, up to the first one too far away.

    Args:
        how: what is different about the other run, as in `compiled by inductor`.
        eps: of the other run's arithmetic, where its dtypes do not show it.

    Raises:
        NotInformative: the reference is not finite, or nothing can be compared.
    """
    seen: list[Event] = []
    yield from _same_calls(reference, other, how)
    for event in events(reference, other, max(eps or 0.0, eps_of(reference, other))):
        require(all_finite(event.first), f"NaN or infinity in {event.name} of run {reference.name!r} (see FM109)")
        seen.append(event)
        if event.allowed >= 1:
            continue
        check = _within(reference, seen, how)
        yield check
        if not check.holds:
            return
    yield from _drifted(reference, seen, how)


def same_bits(reference: Run, other: Run, how: str) -> Iterator[Check]:
    """The same up to the first tensor that differs in a bit."""
    yield from _same_calls(reference, other, how)
    for event in events(reference, other, eps_of(reference, other)):
        same = bitwise(event.first, event.second)
        yield exact(
            same,
            "" if same else f"{how}: {event.name} is another one; {apart(event.first, event.second)}",
            where=_place(reference, event),
            diagnosis=partial(_cause, event, how),
        )
        if not same:
            return


def events(reference: Run, other: Run, eps: float) -> Iterator[Event]:
    """The tensors that both runs recorded, in the order in which they came to be."""
    spec, case = reference.subject.spec, reference.case
    weight = spec.guidance_weight(case.guidance_scale)
    before, passes, evaluated, calls = 0.0, 0, False, 0
    for name, call, made, first, second in _pairs(reference, other):
        size = sum(map(abs, spec.time_map)) if name.startswith("the time") else None
        distance = _distance(first, second, size)
        own = _passes(reference, call) if made else 0
        drift = device_bound(eps, passes=passes + own, weight=weight, guided=evaluated, calls=calls)
        yield Event(name, call, made, first, second, distance, before, drift, event_bound(drift, before, eps))
        before = max(before, distance)
        # What agrees bit for bit has no error to pass on, and a velocity hands on its own through the state.
        if made and distance and call is not None and call.role == "velocity" and reference.wish.kind == "generate":
            evaluated, calls = True, calls + 1
        elif made and distance:
            passes += own


def _passes(run: Run, call: Call | None) -> int:
    """Passes through a network that lie in a call, or in what follows the last one."""
    role = "decode" if call is None and "decode" not in run.subject.points else "" if call is None else call.role
    return int(role in ("text", "velocity", "encode", "decode"))


def _pairs(reference: Run, other: Run) -> Iterator[tuple[str, Call | None, bool, Tensor, Tensor]]:
    for one, two in zip(reference.trace.calls, other.trace.calls, strict=False):
        if one.name != two.name:
            break
        if one.role in ENTRIES:
            continue
        for key, text in (("x", "the input of"), ("time", "the time of")):
            yield from _both(f"{text} {one.name}", one, False, one.inputs.get(key), two.inputs.get(key))
        yield from _both(f"the output of {one.name}", one, True, one.output, two.output)
    yield from _both("the result", None, True, reference.trace.result, other.trace.result)


def _both(
    name: str, call: Call | None, made: bool, first: object, second: object
) -> Iterator[tuple[str, Call | None, bool, Tensor, Tensor]]:
    if isinstance(first, Tensor) and isinstance(second, Tensor) and first.is_floating_point():
        yield name, call, made, first, second.to(first.device)


def _distance(first: Tensor, second: Tensor, size: float | None) -> float:
    """`rms(second - first)` as a share of the size of the first, or of another one."""
    if first.shape != second.shape:
        return math.inf
    a, b = first.double(), second.double()
    gap = float(torch.linalg.vector_norm(b - a)) if all_finite(b) else math.inf
    whole = float(torch.linalg.vector_norm(a)) if size is None else size * math.sqrt(max(a.numel(), 1))
    if gap == 0:
        return 0.0
    return gap / whole if whole else math.inf


def _same_calls(reference: Run, other: Run, how: str) -> Iterator[Check]:
    names = [[call.name for call in run.trace.calls] for run in (reference, other)]
    longest = max(map(len, names))
    pairs = zip(*(found + ["nothing"] * (longest - len(found)) for found in names), strict=True)
    here, there = next((pair for pair in pairs if pair[0] != pair[1]), ("", ""))
    yield exact(
        here == there,
        f"{how}: other calls are made: {there} in the place of {here}; "
        f"{len(names[1])} observed calls, {len(names[0])} in the reference",
    )


def _within(reference: Run, seen: Sequence[Event], how: str) -> Check:
    event = seen[-1]
    return within(
        event.apart,
        event.allowed,
        f"{how}: {event.name} differs by {event.apart:.2g} of its size, what comes before it by at most "
        f"{event.before:.2g}; allowed {event.allowed:.2g}",
        where=_place(reference, event),
        diagnosis=lambda: _parting(reference, seen, how),
    )


def _drifted(reference: Run, seen: Sequence[Event], how: str) -> Iterator[Check]:
    """Whether the runs came apart further than correct passes add up to, although no single event made a leap."""
    last = seen[-1] if seen else None
    # Where nothing before it differs it has come apart at once, which its own bound judges.
    if last is not None and last.drift < 1 and last.before:
        yield within(
            last.apart,
            last.drift,
            f"{how}: {last.name} differs by {last.apart:.2g} of its size, little by little; allowed {last.drift:.2g}",
            diagnosis=lambda: _parting(reference, seen, how),
            severity="warning",
        )


def _parting(reference: Run, seen: Sequence[Event], how: str) -> str:
    """Where two runs part: at the event that adds most to what lies before it."""
    event, worst = seen[-1], max(seen, key=lambda event: event.leap)
    if worst is event:
        return _cause(event, how)
    place = _place(reference, worst)
    return (
        f"the runs part little by little; most of it at {place}: from {worst.before:.2g} to {worst.apart:.2g} of its "
        f"size ({_cause(worst, how)})"
    )


def _cause(event: Event, how: str) -> str:
    known = mistake(event.first, event.second, event.drift or event.allowed)
    if known:
        return known
    if event.call is None:
        return "what follows the last observed call computes something else"
    if event.made:
        return f"{event.call.role} itself computes something else {how}"
    if event.call.role == "velocity" and event.call.number == 0:
        return "what makes the initial state computes something else"
    return "the update of the state, between the calls, computes something else"


def _place(reference: Run, event: Event) -> str:
    """The event and the step that it belongs to."""
    place = f"{event.name} ({describe(event.first)})"
    if event.call is None or event.call.role != "velocity" or reference.wish.kind != "generate":
        return place
    evaluations = [] if missing(lambda: reference.reading.evaluations) else reference.reading.evaluations
    number = next((k for k, e in enumerate(evaluations) if event.call.number in e.calls), None)
    if number is None:
        return place
    return f"{place}, {by_step(reference, number // reference.subject.spec.stages)}"
