"""Guided predictions that are scaled afterwards: to the spread or to the norm of the conditional one."""

import statistics

from torch import Tensor

from fmcheck.init.fit_guidance import MoveFit
from fmcheck.init.fit_time import TimeFit
from fmcheck.init.proposal import Proposal
from fmcheck.init.roles import Evaluation

__all__ = ["fit_rescale", "rescaled_by"]

_GOOD = 1e-2


def rescaled_by(factors: list[float], cond: Tensor, mixed: Tensor) -> dict[str, float | str]:
    """Field of the spec that explains the factor of every row; empty where none does.

    Args:
        factors: one a row, 1 where nothing is scaled.
        cond, mixed: the conditional and the combined prediction, `[B, ...]`.
    """
    c, p = cond.flatten(1), mixed.flatten(1)
    norms = (c.norm(dim=1) / p.norm(dim=1)).tolist()
    if all(abs(f - n) < _GOOD for f, n in zip(factors, norms, strict=True)):
        return {"guidance_norm": "row"}
    spread = (c.std(dim=1) / p.std(dim=1)).tolist()
    shares = [(f - 1) / (r - 1) for f, r in zip(factors, spread, strict=True) if abs(r - 1) > 1e-6]
    if shares and max(shares) - min(shares) < _GOOD and 0 < statistics.mean(shares) < 1 + _GOOD:
        return {"guidance_rescale": round(statistics.mean(shares), 3)}
    return {}


def fit_rescale(
    proposal: Proposal, found: list[Evaluation], moves: list[MoveFit], cond_first: bool, time: TimeFit
) -> None:
    """Propose the field where the changes of rows differ by a factor of their own; `moves` are of the same run."""
    if not any(m.factors for m in moves):
        return
    scale = proposal.driver.case.guidance_scale
    weight = scale if proposal.value("guidance_formula") == "cond_plus" else scale - 1
    agreed: list[dict[str, float | str]] = []
    for move, evaluation, size in zip(moves, found, time.sizes, strict=False):
        if not move.factors or evaluation.second is None:
            continue
        if move.by_token:
            agreed.append({"guidance_norm": "last_axis"})
            continue
        a, b = evaluation.first, evaluation.second
        cond, uncond = (a, b) if cond_first else (b, a)
        mixed = (1 + weight) * cond - weight * uncond
        agreed.append(rescaled_by([abs(f) / size for f in move.factors], cond, mixed))
    fields = agreed[0] if agreed else {}
    if not fields or any(set(other) != set(fields) for other in agreed):
        proposal.missing.append("guidance: the combined prediction is rescaled a row, in a way that is not recognised")
        return
    for name, value in fields.items():
        numbers = [float(other[name]) for other in agreed if isinstance(value, float)]
        chosen = round(statistics.median(numbers), 3) if numbers else value
        proposal.set(name, chosen, "rows change by a factor of their own, which this gives at every step")
