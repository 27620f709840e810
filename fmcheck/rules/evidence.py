"""Pieces that many rules share: comparisons as evidence, and premises that say why a run cannot be judged."""

import math
from collections.abc import Callable, Iterable
from typing import TypeVar

import torch
from torch import Tensor

from fmcheck.errors import NotInformative
from fmcheck.plan import Run
from fmcheck.rules.registry import Check, Severity

__all__ = ["bitwise", "by_step", "exact", "given", "nearest_explanation", "require", "require_finite", "within"]


T = TypeVar("T")


def require(premise: bool, reason: str) -> None:
    """Go on only when the premise of a rule holds; otherwise the run says nothing about the rule, because `reason`."""
    if not premise:
        raise NotInformative(reason)


def given(value: T | None, reason: str) -> T:
    """The value, when there is one; otherwise the run says nothing about the rule, because `reason`."""
    if value is None:
        raise NotInformative(reason)
    return value


def require_finite(*tensors: Tensor | None) -> None:
    """Numeric comparison means nothing once NaN or infinity is in it; FM109 reports those."""
    finite = all(t is None or bool(torch.isfinite(t).all()) for t in tensors)
    require(finite, "NaN or infinity in the recorded tensors (see FM109)")


def exact(
    holds: bool,
    message: str,
    *,
    where: str = "",
    diagnosis: str | Callable[[], str | None] | None = None,
    severity: Severity = "error",
) -> Check:
    """Evidence about a property that holds or does not. A callable diagnosis is asked only on failure."""
    cause = None if holds else _resolve(diagnosis)
    return Check(holds=holds, message=message, where=where, diagnosis=cause, severity=severity)


def within(
    used: float,
    allowed: float,
    message: str,
    *,
    where: str = "",
    diagnosis: str | Callable[[], str | None] | None = None,
    severity: Severity = "error",
) -> Check:
    """Evidence about an error and its derived bound (both in the same unit); NaN fails."""
    holds = used <= allowed
    cause = None if holds else _resolve(diagnosis)
    return Check(
        holds=holds, message=message, where=where, used=used, allowed=allowed, diagnosis=cause, severity=severity
    )


def bitwise(a: Tensor, b: Tensor) -> bool:
    """Equal in shape, dtype and every bit that matters (NaN equals NaN)."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if torch.equal(a, b) or not a.is_floating_point():
        return torch.equal(a, b)
    # Filled with zeros on both sides only where both are NaN, so that NaN differs from every number.
    nan = a.isnan()
    return torch.equal(nan, b.isnan()) and torch.equal(a.masked_fill(nan, 0), b.masked_fill(nan, 0))


def nearest_explanation(observed: float, mistakes: Iterable[tuple[float, str]], allowed: float) -> str | None:
    """The known mistake whose value reproduces the observed one within the bound of the comparison."""
    fitting = [(abs(observed - value), text) for value, text in mistakes if math.isfinite(value)]
    best = min(fitting, default=None)
    return best[1] if best is not None and best[0] <= allowed else None


def by_step(run: Run, step: int) -> str:
    """`step 2 of 4`, as findings say where they are."""
    return f"step {step} of {run.case.num_steps}"


def _resolve(diagnosis: str | Callable[[], str | None] | None) -> str | None:
    return diagnosis() if callable(diagnosis) else diagnosis
