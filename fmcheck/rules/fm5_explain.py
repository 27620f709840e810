"""Diagnoses of family FM5: what else could have made a change of the state that is not the declared step."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from fmcheck.flow import effective_coefficients
from fmcheck.record.grouping import Evaluation
from fmcheck.record.reading import Move
from fmcheck.tolerance import EXPLAINED, fit_bound, short_bound

_AXES = ("rows", "channels", "lines", "columns")


def explain_update(move: Move, evaluations: Sequence[Evaluation] = ()) -> str:
    """The known mistake that reproduces the change of a state.

    Args:
        evaluations: those before and at the end of the move, in order.
    """
    if not move.closes and not bool(move.delta.any()):
        return "the second stage is evaluated at the state of the first"
    for found in (_clipped(move), _masked(move), _slicewise(move), _other_rows(move), _rowwise_affine(move)):
        if found:
            return found
    return _history(move, evaluations) or _rounded(move) or _unknown(move)


def _fits(move: Move, remaining: Tensor) -> bool:
    """Whether what an explanation leaves over is small against what the declared step leaves over, or rounding."""
    leftover = move.leftover if move.coefficients.determined else move.delta.abs()
    rounding = float(fit_bound(move).max()) if move.coefficients.determined else 0.0
    return float(remaining.abs().max()) <= max(EXPLAINED * float(leftover.max()), 4 * rounding)


def _unknown(move: Move) -> str:
    share = float(move.leftover.norm() / move.delta.norm()) if bool(move.delta.any()) else 0.0
    return f"something else is added to the state, {share:.2g} of the change: noise, or a correction"


def _columns(move: Move) -> list[Tensor]:
    return [move.cond] if move.uncond is None or move.alike else [move.cond, move.uncond]


def _solve(columns: list[Tensor], target: Tensor) -> tuple[Tensor, Tensor]:
    """Least-squares coefficients of flattened columns, and the fitted target; the CPU solver has no rank limits."""
    matrix = torch.stack([column.double().flatten().cpu() for column in columns], 1)
    solution = torch.linalg.lstsq(matrix, target.double().flatten().cpu().unsqueeze(1), driver="gelsd").solution
    return solution.flatten(), (matrix @ solution).reshape(target.shape).to(target.device)


def _slicewise(move: Move) -> str | None:
    """Steps or weights that differ along one axis, each slice of which is a correct step of its own."""
    for axis, name in enumerate(_AXES[: move.delta.dim()]):
        fits = list(_slices(move, axis))
        if len(fits) < 2 or not all(fit is not None for fit in fits):
            continue
        dts, weights = zip(*[fit for fit in fits if fit is not None], strict=True)
        # A convention that no field of FlowSpec declares must not read like a slip.
        rescaled = " (rescaled guidance, or one scale a row? No field of FlowSpec declares those)" if axis == 0 else ""
        low, high = min(weights), max(weights)
        if high - low > EXPLAINED * max(abs(low), abs(high), 1.0):
            return f"guidance differs between {name}: its weight goes from {low:.4g} to {high:.4g}{rescaled}"
        low, high = min(dts), max(dts)
        if high - low > EXPLAINED * max(abs(low), abs(high)):
            return f"the step differs between {name}: its length goes from {low:.4g} to {high:.4g}{rescaled}"
    return None


def _slices(move: Move, axis: int) -> Iterator[tuple[float, float] | None]:
    """Step size and weight of every slice; None for one that is no step."""
    for index in range(move.delta.shape[axis]):
        delta, *columns = (t.select(axis, index) for t in (move.delta / move.fraction, *_columns(move)))
        # Two coefficients fit any two numbers.
        if delta.numel() < 4:
            yield None
            continue
        fitted = effective_coefficients(delta, columns[0], columns[1] if len(columns) > 1 else None)
        terms = zip((fitted.cond, fitted.uncond), columns, strict=False)
        explained = sum((a * c for a, c in terms), torch.zeros_like(delta))
        good = fitted.determined and _fits(move, (delta - explained) * move.fraction)
        yield (fitted.dt, fitted.weight) if good else None


def _rowwise_affine(move: Move) -> str | None:
    """`end = s start + step + m`, with `s` and `m` of each row."""
    scales, shifts = [], []
    for row in range(len(move.delta)):
        end, start = move.end[row].double(), move.start[row].double()
        columns = [start, torch.ones_like(start), *(column[row] for column in _columns(move))]
        if end.numel() < 3 * len(columns):
            return None
        solution, fitted = _solve(columns, end)
        if not _fits(move, end - fitted):
            return None
        scales.append(float(solution[0]))
        shifts.append(float(solution[1]))
    moved = max(abs(shift) for shift in shifts) > EXPLAINED * float(move.delta.abs().max())
    scaled = max(abs(scale - 1) for scale in scales) > EXPLAINED
    if not (moved or scaled):
        return None
    parts = [f"multiplied by {min(scales):.4g} to {max(scales):.4g}"] if scaled else []
    parts += [f"shifted by {min(shifts):.4g} to {max(shifts):.4g}"] if moved else []
    return f"the rows of the state are {' and '.join(parts)} in the step: scaled, normalised or re-centred"


def _other_rows(move: Move) -> str | None:
    for shift in range(1, len(move.cond)):
        columns = [column.roll(shift, 0) for column in _columns(move)]
        fitted = _solve(columns, move.delta)[1]
        if _fits(move, move.delta - fitted):
            return f"row i is moved by the velocity of row i - {shift}"
    return None


def _history(move: Move, evaluations: Sequence[Evaluation]) -> str | None:
    """A combination of velocities of several evaluations: the previous one, momentum, multistep methods."""
    names, columns = [], []
    for k, evaluation in enumerate(evaluations):
        for branch, v in (("v_cond", evaluation.v_cond), ("v_uncond", evaluation.v_uncond)):
            if v is not None and v.shape == move.delta.shape and bool(v.any()):
                names.append(f"{branch}[{k}]")
                columns.append(v)
    if not columns or 3 * len(columns) > move.delta.numel():
        return None
    solution, fitted = _solve(columns, move.delta)
    if not _fits(move, move.delta - fitted):
        return None
    sizes = [abs(float(a)) * float(v.norm()) for a, v in zip(solution, columns, strict=True)]
    used = [name for name, size in zip(names, sizes, strict=True) if size > EXPLAINED * max(sizes)]
    return f"the state is moved by a combination of {', '.join(used)} (the number is that of the evaluation)"


def _clipped(move: Move) -> str | None:
    end = move.end.double()
    high, low = float(end.max()), float(end.min())
    at_limit = int((end == high).sum() + (end == low).sum())
    return f"the state is clipped to [{low:.4g}, {high:.4g}]" if at_limit > 4 and high > low else None


def _masked(move: Move) -> str | None:
    """Elements that stand still while all others make a correct step."""
    still = move.delta == 0
    count = int(still.sum())
    if not 2 < count < still.numel() - 3 * 2:
        return None
    fitted = _solve([column[~still] for column in _columns(move)], move.delta[~still])[1]
    text = f"{count} of {still.numel()} elements of the state stand still (a mask), the others make a step"
    return text if _fits(move, move.delta[~still] - fitted) else None


def _rounded(move: Move) -> str | None:
    if not move.coefficients.determined:
        return None
    short = bool((move.leftover <= fit_bound(move) + short_bound(move, torch.bfloat16)).all())
    return (
        "the velocities, the step or the state are rounded to a short dtype, or noise of that size" if short else None
    )
