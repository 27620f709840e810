"""The velocities of a run: both branches, the angle between them, and the combination that moved the state."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from fmcheck.errors import missing
from fmcheck.flow import combine
from fmcheck.plan import Run
from fmcheck.plots.times import Numbers
from fmcheck.record.grouping import Evaluation
from fmcheck.record.reading import Move
from fmcheck.tensors import rms_rows

__all__ = ["Velocities", "angle_rows", "velocities_of"]


@dataclass(frozen=True, kw_only=True)
class Velocities:
    """Root mean square of the velocities, one entry an evaluation; by rows `[evaluation][row]`, empty when not made.

    Attributes:
        cond, uncond: of the two branches.
        angle: between them, in degrees, 0 to 180.
        combined: of `(1 + w) v_cond - w v_uncond`, the declared formula.
        step: the step that each entry of `used` belongs to.
        used: what really moved the state, its change over the declared length of the step.
        declared: what should have: the formula, by the stages of the declared solver.
        guidance: the guidance weight in words.
        reason: why the state's changes cannot be read; empty when they can.
    """

    cond: tuple[Numbers, ...]
    uncond: tuple[Numbers, ...]
    angle: tuple[Numbers, ...]
    combined: tuple[Numbers, ...]
    step: Numbers
    used: tuple[Numbers, ...]
    declared: tuple[Numbers, ...]
    guidance: str
    reason: str = ""


def velocities_of(run: Run) -> Velocities:
    """
    Raises:
        NotInformative: the calls cannot be read as evaluations.
    """
    reading = run.reading
    reason = missing(lambda: [move.delta for move in reading.full_moves])
    moves = [] if reason is not None else [m for m in reading.full_moves if m.step < len(reading.steps_dt)]
    dt = reading.steps_dt.tolist()
    return Velocities(
        cond=_by_evaluation(reading.evaluations, lambda e: rms_rows(e.v_cond)),
        uncond=_by_evaluation(reading.evaluations, lambda e: () if e.v_uncond is None else rms_rows(e.v_uncond)),
        angle=_by_evaluation(
            reading.evaluations, lambda e: () if e.v_uncond is None else angle_rows(e.v_cond, e.v_uncond)
        ),
        combined=_by_evaluation(
            reading.evaluations, lambda e: rms_rows(guided(e.v_cond, e.v_uncond, reading.weight_at(e.time)))
        ),
        step=tuple(float(move.step) for move in moves),
        used=tuple(rms_rows(move.delta / (move.fraction * dt[move.step])) for move in moves),
        declared=tuple(rms_rows(declared_velocity(move)) for move in moves),
        guidance=_guidance(run),
        reason=reason or "",
    )


def _guidance(run: Run) -> str:
    spec, weight = run.subject.spec, run.reading.weight
    if spec.guidance_layout == "embedded":
        return "the network is told the scale"
    if not weight:
        return "guidance off, w = 0"
    low, high = spec.guidance_interval
    between = "" if spec.guided_throughout else f" for t in [{low:g}, {high:g}]"
    rescaled = ", rescaled" if spec.rescales else ""
    return f"w = {weight:g}{between}{rescaled}"


def declared_velocity(move: Move) -> Tensor:
    """`(1 + w) v_cond - w v_uncond` of a move, in float64."""
    return guided(move.cond, move.uncond, move.weight)


def guided(cond: Tensor, uncond: Tensor | None, weight: float) -> Tensor:
    """The declared combination; the conditional velocity where there is no other."""
    if uncond is None or uncond.shape != cond.shape:
        return cond
    return combine(cond, uncond, weight)


def angle_rows(first: Tensor, second: Tensor) -> Numbers:
    """Angle between the rows of two tensors in degrees; NaN where one of them is zero."""
    a, b = (side.detach().cpu().double().reshape(len(side), -1) for side in (first, second))
    if a.shape != b.shape:
        return ()
    # By halves of the sum and difference of unit vectors: the arc cosine loses small angles to rounding.
    a, b = a / a.norm(dim=1, keepdim=True), b / b.norm(dim=1, keepdim=True)
    apart, together = (a - b).norm(dim=1), (a + b).norm(dim=1)
    return tuple(math.degrees(2 * math.atan2(x, y)) for x, y in zip(apart.tolist(), together.tolist(), strict=True))


def _by_evaluation(made: list[Evaluation], of: Callable[[Evaluation], Numbers]) -> tuple[Numbers, ...]:
    return tuple(of(evaluation) for evaluation in made)
