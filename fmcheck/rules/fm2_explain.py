"""Diagnoses of family FM2: the weights that known mistakes about guidance come down to."""

import math

from fmcheck.record.reading import Reading
from fmcheck.rules.evidence import nearest_explanation
from fmcheck.tolerance import EXPLAINED

__all__ = ["explain_weight", "guidance_mistakes"]


def guidance_mistakes(w: float) -> tuple[tuple[float, str], ...]:
    """Weights that a loop has instead of `w` in `(1 + w) c - w u`, and what was done to it."""
    return (
        (0.0, "guidance is ignored: the state moves along v_cond alone"),
        (-1.0, "the state moves along v_uncond alone"),
        (-(1 + w), "the halves are swapped: v_uncond takes the place of v_cond"),
        (w - 1, "the scale is used as u + w (c - u)"),
        (w + 1, "the scale is used as (1 + s) c - s u although it is an s for u + s (c - u)"),
        (-w, "the difference c - u has the wrong sign"),
        (w * (2 + w), "guidance is applied twice"),
        (2 * w, "the weight is doubled"),
        (w / 2, "the weight is halved"),
    )


def explain_weight(reading: Reading, observed: float) -> str:
    """The mistake that makes the observed weight of the declared one, and whether it changes from step to step."""
    w = reading.weight
    found = nearest_explanation(observed, guidance_mistakes(w), EXPLAINED * (1 + abs(w)))
    fits = [move.coefficients.weight for move in reading.full_moves if move.uncond is not None and not move.alike]
    weights = [weight for weight in fits if math.isfinite(weight)]
    if weights and max(weights) - min(weights) > EXPLAINED * (1 + abs(w)):
        shown = ", ".join(f"{weight:.4g}" for weight in weights[:8])
        found = f"{found}; " if found else ""
        return (
            f"{found}the weight changes from step to step ({shown}): a schedule or an interval of guidance, which no "
            "field of FlowSpec declares"
        )
    return found or f"the weight is {observed / w:.6g} times the declared one in every step"
