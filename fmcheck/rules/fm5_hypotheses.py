"""Diagnoses of the oracle rules: which wrong loop ends where the user's ended, on a field whose velocity is known."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

from torch import Tensor

from fmcheck.flow import effective_coefficients
from fmcheck.flow.exact import ExactField
from fmcheck.record.reading import Reading
from fmcheck.rules.wrong_loops import Loop, declared_loop, wrong_loops
from fmcheck.tolerance import EXPLAINED

__all__ = ["explain_end"]

# Steps of the secant search for the number of a mistake, which is nearly linear in it.
_TRIES = 6


def explain_end(field: ExactField, reading: Reading, end: Tensor, declared: Tensor, rounding: Tensor) -> str | None:
    """The wrong loop that ends nearest to `end`, when it ends there within rounding, or a thousandth of the deviation.

    Args:
        end, declared: where the user's loop ended, and where the declared one does.
        rounding: elementwise bound on the distance of a correct loop.
    """
    start = reading.start
    allowed = max(4 * _size(rounding), EXPLAINED * _size(end - declared))
    candidates = [(_size(loop.end(field, start) - end), loop.text) for loop in wrong_loops(reading)]
    nearest = min(distance for distance, _ in candidates)
    if nearest <= allowed:
        # Some mistakes come to the same: the better known one is said.
        return next(text for distance, text in candidates if distance <= max(2 * nearest, _size(rounding)))
    fitted = [*_tuned(field, reading, start, end), _touched_afterwards(end, declared, start)]
    distance, text = min(fitted, key=lambda candidate: candidate[0])
    return text if distance <= allowed else None


def _size(x: Tensor) -> float:
    """Root mean square; infinite for a loop that diverges."""
    size = float(x.square().mean().sqrt())
    return size if size == size else float("inf")


def _touched_afterwards(end: Tensor, declared: Tensor, start: Tensor) -> tuple[float, str]:
    """`end = a declared + b start`: the distance that is left, and what was done."""
    found = effective_coefficients(end, declared, start)
    if not found.determined:
        return math.inf, ""
    added = f" and {found.uncond:+.4g} times the initial one" if abs(found.uncond) > EXPLAINED else ""
    text = f"the state is changed after the loop: {found.cond:.6g} times the declared one{added}"
    return _size(end - found.cond * declared - found.uncond * start), text


def _tuned(field: ExactField, reading: Reading, start: Tensor, end: Tensor) -> Iterator[tuple[float, str]]:
    """Mistakes of one number, which is searched for: the distance that is left, and what was done."""
    for family, name in _families(reading):
        value = 0.0
        for _ in range(_TRIES):
            here = family(value).end(field, start)
            slope = (family(value + 1e-4).end(field, start) - here) / 1e-4
            square = float(slope.square().sum())
            step = float((slope * (end - here)).sum()) / square if square else 0.0
            value += max(-1.0, min(1.0, step))
        yield _size(family(value).end(field, start) - end), name(value)


def _families(reading: Reading) -> Iterator[tuple[Callable[[float], Loop], Callable[[float], str]]]:
    """Loops that are the declared one at 0, and what the number says."""
    loop, edges = declared_loop(reading), reading.edges
    low, length = edges[:-1, None], edges.diff()[:, None]
    yield (
        lambda p: replace(loop, dt=(1 + p) * loop.dt),
        lambda p: f"every step is {1 + p:.6g} times as long as declared (or every velocity as large)",
    )
    yield (
        lambda p: replace(loop, damping=p),
        lambda p: f"the state is damped beside the velocity: {-p:+.4g} x is added to it",
    )
    yield (
        lambda p: replace(loop, times=loop.times + p * length),
        lambda p: f"evaluated {float(((loop.times - low) / length)[0, 0]) + p:.3g} of the step after its left edge",
    )
    yield (
        lambda p: replace(loop, cond=loop.cond + p, uncond=loop.uncond - p),
        lambda p: f"the guidance weight is {-loop.uncond + p:.6g}, declared {-loop.uncond:.6g}",
    )
    yield (
        lambda p: replace(loop, memory=p),
        lambda p: f"a share of {-p:.4g} of the velocity is that of the step before",
    )
