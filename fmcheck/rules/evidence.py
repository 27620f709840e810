"""Pieces that many rules share: comparisons as evidence, and premises that say why a run cannot be judged."""

import math
from collections.abc import Callable, Iterable
from typing import TypeVar

import torch
from torch import Tensor

from fmcheck.errors import NotInformative
from fmcheck.plan import Run
from fmcheck.record.reading import Move
from fmcheck.rules.registry import Check, Severity
from fmcheck.tensors import all_finite, describe

__all__ = [
    "apart",
    "bitwise",
    "by_step",
    "ends_alike",
    "ever_moves",
    "exact",
    "given",
    "idle_guidance",
    "measured",
    "nearest_explanation",
    "require",
    "require_finite",
    "require_finite_move",
    "unconditional_only",
    "within",
]


T = TypeVar("T")
# Most of some hundred checks a run hold, and of those nothing but their number is kept.
_HELD = Check(holds=True)
Diagnosis = str | Callable[[], str | None] | None


def require(premise: bool, reason: str) -> None:
    """Go on only when the premise of a rule holds; otherwise the run says nothing about the rule, because `reason`."""
    if not premise:
        raise NotInformative(reason)


def given(value: T | None, reason: str) -> T:
    """The value, when there is one; otherwise the run says nothing about the rule, because `reason`."""
    if value is None:
        raise NotInformative(reason)
    return value


def ever_moves(run: Run) -> bool:
    """Whether the network ever returned a velocity that is not zero; a zero-initialised output layer does not."""
    outputs = (call.output for call in run.trace.of("velocity"))
    return any(bool(output.any()) for output in outputs if output is not None)


def idle_guidance(run: Run) -> str:
    """Why no scale can matter in a run; "" where it can.

    Every prompt is empty and nothing else marks the null, so that both branches are rightly asked the same; or the few
    evaluations that there are lie outside of the interval in which guidance acts.
    """
    marked = run.subject.points["velocity"].arguments.get("null") is not None
    if not marked and not any(prompt.strip() for prompt in run.case.prompts):
        return "every prompt is empty, so that both branches are asked the same"
    if run.subject.spec.guided_throughout:
        return ""
    low, high = run.subject.spec.guidance_interval
    times = run.reading.evaluation_times
    if not bool(((times >= low) & (times <= high)).any()):
        return f"no evaluation of {run.case.num_steps} steps lies in the guidance interval"
    return ""


def unconditional_only(run: Run) -> bool:
    """Whether the result is the unconditional branch alone, as at `s = 0` in `u + s (c - u)`: no prompt shows in it.

    A flow that starts at the text has the prompt in its state.
    """
    spec = run.subject.spec
    return spec.initial_state != "text_latent" and spec.guidance_weight(run.case.guidance_scale) == -1


_NOT_FINITE = "NaN or infinity in the recorded tensors (see FM109)"


def require_finite(*tensors: Tensor | None) -> None:
    """Numeric comparison means nothing once NaN or infinity is in it; FM109 reports those."""
    require(all(t is None or all_finite(t) for t in tensors), _NOT_FINITE)


def require_finite_move(move: Move) -> None:
    """The same for both ends and both velocities of a move."""
    require(move.finite, _NOT_FINITE)


def exact(
    holds: bool,
    message: str,
    *,
    where: str = "",
    diagnosis: Diagnosis = None,
    severity: Severity = "error",
) -> Check:
    """Evidence about a property that holds or does not. A callable diagnosis is asked only on failure."""
    return _check(holds, message, where, diagnosis, severity)


def measured(text: str) -> Check:
    """What the subject does, in words and numbers, for the report; no comparison."""
    return Check(holds=True, measured=text)


def within(
    used: float,
    allowed: float,
    message: str,
    *,
    where: str = "",
    diagnosis: Diagnosis = None,
    severity: Severity = "error",
) -> Check:
    """Evidence about an error and its derived bound (both in the same unit); NaN fails."""
    return _check(used <= allowed, message, where, diagnosis, severity, used, allowed)


def bitwise(a: Tensor, b: Tensor) -> bool:
    """Equal in shape, dtype and every bit that matters (NaN equals NaN)."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if torch.equal(a, b) or not a.is_floating_point():
        return torch.equal(a, b)
    # Filled with zeros on both sides only where both are NaN, so that NaN differs from every number.
    nan = a.isnan()
    return torch.equal(nan, b.isnan()) and torch.equal(a.masked_fill(nan, 0), b.masked_fill(nan, 0))


def ends_alike(one: Run, other: Run) -> bool:
    """Whether two runs come to the same end, bit for bit: the same pictures, of the same state where it can be seen.

    Pictures alone can be the same because every pixel is saturated, at a guidance scale of 1e5 for instance.
    """
    if not bitwise(one.result, other.result):
        return False
    ends = [None if run.reading.unreadable else run.reading.final for run in (one, other)]
    return ends[0] is None or ends[1] is None or bitwise(ends[0], ends[1])


def apart(a: Tensor, b: Tensor) -> str:
    """How two tensors that should agree bit for bit differ."""
    if a.shape != b.shape or a.dtype != b.dtype or not a.numel():
        return f"{describe(a)} against {describe(b)}"
    return f"largest difference {float((a.double() - b.double()).abs().max()):.3g}, allowed 0 (bitwise)"


def nearest_explanation(observed: float, mistakes: Iterable[tuple[float, str]], allowed: float) -> str | None:
    """The known mistake whose value reproduces the observed one within the bound of the comparison."""
    fitting = [(abs(observed - value), text) for value, text in mistakes if math.isfinite(value)]
    best = min(fitting, default=None)
    return best[1] if best is not None and best[0] <= allowed else None


def by_step(run: Run, step: int) -> str:
    """`step 2 of 4`, as findings say where they are."""
    return f"step {step} of {run.case.num_steps}"


def _cause(diagnosis: Diagnosis) -> str | None:
    try:
        return diagnosis() if callable(diagnosis) else diagnosis
    except NotInformative:
        return None  # a finding stands, whether or not it can be explained


def _check(
    holds: bool,
    message: str,
    where: str,
    diagnosis: Diagnosis,
    severity: Severity,
    used: float | None = None,
    allowed: float | None = None,
) -> Check:
    if holds and used is None and severity != "note":
        return _HELD
    cause = None if holds else _cause(diagnosis)
    return Check(
        holds=holds, message=message, where=where, used=used, allowed=allowed, diagnosis=cause, severity=severity
    )
