"""From changes of the state to coefficients: what the network predicts, how two branches combine."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fmcheck.init.roles import Evaluation

__all__ = ["EXACT", "Combination", "Fit", "combination", "least_squares", "move_fits"]

# Relative residual below which columns explain a change: runs are float32, and their small steps cancel.
EXACT = 2e-3


@dataclass
class Fit:
    """`delta = sum(coefficients * columns)` with the residual relative to the change."""

    coefficients: list[float]
    residual: float


def least_squares(delta: Tensor, columns: Sequence[Tensor]) -> Fit:
    """Least squares over all elements, in float64, of tensors of one shape."""
    matrix = torch.stack([column.reshape(-1).double() for column in columns], dim=1)
    target = delta.reshape(-1, 1).double()
    scale = matrix.norm(dim=0).clamp_min(1e-30)
    found = torch.linalg.lstsq(matrix / scale, target, driver="gelsd").solution
    size = float(target.norm())
    residual = float((matrix / scale @ found - target).norm()) / size if size else 0.0
    return Fit((found.reshape(-1) / scale).tolist(), residual)


@dataclass
class MoveFit:
    """One change of the state from one evaluation: share of the first branch, size of the step, kind of prediction.

    `size` is the sum of the coefficients of the branches (dt of a velocity), `state` that of the state itself, which is
    0 for a velocity; `factors` are the sizes a row where the combined prediction was rescaled.
    """

    share: float
    size: float
    state: float
    residual: float
    factors: list[float] = field(default_factory=list)
    by_token: bool = False


def move_fit(delta: Tensor, evaluation: Evaluation) -> MoveFit:
    """The change as a combination of predictions; with the state as a further column where that is needed."""
    columns = evaluation.columns
    plain = least_squares(delta, columns)
    best, state = plain, 0.0
    if plain.residual > EXACT:
        with_state = least_squares(delta, [*columns, evaluation.x])
        if with_state.residual < min(EXACT, plain.residual / 10):
            best, state = with_state, with_state.coefficients[-1]
    size = sum(best.coefficients[: len(columns)])
    share = best.coefficients[0] / size if size else 1.0
    if best.residual <= EXACT or len(columns) == 1:
        return MoveFit(share, size, state, best.residual)
    return _by_row(delta, columns) or MoveFit(share, size, state, best.residual)


def _by_row(delta: Tensor, columns: list[Tensor]) -> MoveFit | None:
    """Rows (or tokens) whose combination has a factor of its own: a rescaled prediction."""
    for by_token in (False, True):
        parts = [delta, *columns]
        if by_token:
            parts = [p.reshape(-1, p.shape[-1]) for p in parts]
        fits = [least_squares(parts[0][i], [p[i] for p in parts[1:]]) for i in range(min(len(parts[0]), 64))]
        if max(fit.residual for fit in fits) < EXACT:
            sizes = [sum(fit.coefficients) for fit in fits]
            shares = [fit.coefficients[0] / size for fit, size in zip(fits, sizes, strict=True)]
            residual = max(fit.residual for fit in fits)
            return MoveFit(statistics.median(shares), statistics.mean(sizes), 0.0, residual, sizes, by_token)
    return None


def move_fits(found: list[Evaluation], stages: int) -> list[MoveFit]:
    """The fit of every change that follows from one evaluation: all of an Euler loop, the first stage of another."""
    pairs = zip(found[::stages], found[1::stages] if stages > 1 else found[1:], strict=False)
    return [move_fit(after.x - before.x, before) for before, after in pairs]


@dataclass
class Combination:
    """What the shares of the first branch at some scales say.

    `cond_first` tells which branch is conditional, None where it cannot be told. `formula` is None where no known
    formula gives the shares.
    """

    formula: str | None
    cond_first: bool | None
    off: tuple[float, ...] = ()


def combination(shares: dict[float, float | None]) -> Combination:
    """Formula and order from the share of the first branch by scale; None is a run with one branch.

    `c + w (c - u)` gives the conditional branch the share `1 + s`, `u + s (c - u)` the share `s`.
    """
    known = {s: share for s, share in shares.items() if share is not None}
    off = tuple(sorted(s for s, share in shares.items() if share is None or min(abs(share - 1), abs(share)) < 1e-3))
    for formula, shift in (("uncond_plus", 0.0), ("cond_plus", 1.0)):
        for cond_first in (True, False):
            expected = {s: s + shift if cond_first else 1 - s - shift for s in known if s not in off}
            if expected and all(abs(known[s] - e) < 0.01 * max(1, abs(e)) for s, e in expected.items()):
                return Combination(formula, cond_first, off)
    return Combination(None, None, off)
