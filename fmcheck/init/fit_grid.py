"""Which grid has the observed edges: uniform, logit-normal quantiles, or a shifted one with its variants."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import NormalDist, mean
from typing import Any

from fmcheck.errors import FmcheckError
from fmcheck.flow import time_edges
from fmcheck.spec import FlowSpec

__all__ = ["GridFit", "Observed", "fit_grid"]

_GOOD = 2e-3
# (steps, tokens of the latent) -> flow times at which the steps begin, without the last edge.
Observed = Mapping[tuple[int, int], list[float]]


@dataclass
class GridFit:
    """Fields of the spec that give the edges, and the largest difference."""

    fields: dict[str, Any]
    residual: float


def fit_grid(observed: Observed) -> GridFit | None:
    """The simplest grid that has all observed edges; None when no known one has them."""
    for fields in _hypotheses(observed):
        try:
            residual = max(_difference(fields, *key, edges) for key, edges in observed.items())
        except (FmcheckError, ArithmeticError, ValueError):
            continue
        if residual < _GOOD:
            return GridFit(fields, residual)
    return None


def _difference(fields: Mapping[str, Any], steps: int, tokens: int, edges: list[float]) -> float:
    plain: dict[str, Any] = dict(fields)
    law = plain.pop("grid_shift_by_tokens", None)
    if law is not None:
        plain["grid_shift"] = math.exp(law[1] + (law[3] - law[1]) * (tokens - law[0]) / (law[2] - law[0]))
    expected: list[float] = time_edges(steps, FlowSpec(**plain)).tolist()
    return float(max(abs(a - b) for a, b in zip(edges, expected, strict=False)))


def _hypotheses(observed: Observed) -> Iterator[dict[str, Any]]:
    yield {"grid": "uniform"}
    (steps, _), edges = max(observed.items(), key=lambda item: item[0][0])
    inner = [(k, t) for k, t in enumerate(edges[:steps]) if k > 0 and 1e-6 < t < 1 - 1e-6]
    if len(inner) < 2:
        return
    shift = _rounded(mean(_shift(k / steps, t) for k, t in inner))
    yield {"grid": "shifted", "grid_shift": shift}
    yield from _quantiles(steps, inner)
    by_tokens = {n: _shift(1 / k, e[1]) for (k, n), e in observed.items() if len(e) > 1}
    if len(by_tokens) > 1:
        a, b = min(by_tokens), max(by_tokens)
        law = (float(a), round(math.log(by_tokens[a]), 5), float(b), round(math.log(by_tokens[b]), 5))
        yield {"grid": "shifted", "grid_shift_by_tokens": law}
    yield from _with_last(steps, inner)
    terminal = _rounded(1 - edges[steps - 1], 3)
    yield from (
        {"grid": "shifted", "grid_shift": s, "grid_terminal": terminal} for s in _stretched(steps, inner, terminal)
    )


def _shift(q: float, t: float) -> float:
    """The factor between the odds of the noise levels `1 - t` and `1 - q`."""
    return (1 - t) * q / (t * (1 - q))


def _quantiles(steps: int, inner: list[tuple[int, float]]) -> Iterator[dict[str, Any]]:
    points = [(NormalDist().inv_cdf(k / steps), math.log(t / (1 - t))) for k, t in inner]
    (z0, y0), (z1, y1) = points[0], points[-1]
    if z1 > z0 and y1 > y0:
        std = (y1 - y0) / (z1 - z0)
        yield {"grid": "logit_normal", "grid_mean": round(y0 - std * z0, 3) + 0.0, "grid_std": _rounded(std, 3)}


def _with_last(steps: int, inner: list[tuple[int, float]]) -> Iterator[dict[str, Any]]:
    """`linspace(1, last, K)` and 0: from the odds of the second and the last level, in closed form."""
    odds = {k: (1 - t) / t for k, t in inner}
    if 1 not in odds or steps - 1 not in odds or steps < 3:
        return
    last = odds[steps - 1] * (steps - 2) / (odds[1] - odds[steps - 1])
    if not 0 < last < 1:
        return
    step = (1 - last) / (steps - 1)
    for chosen in dict.fromkeys((_rounded(last, 1), _rounded(last, 2), last)):
        shift = _rounded(odds[1] * step / (1 - step), 3)
        yield {"grid": "uniform" if shift == 1 else "shifted", "grid_shift": shift, "grid_last_sigma": chosen}


def _stretched(steps: int, inner: list[tuple[int, float]], terminal: float) -> Iterator[float]:
    """Shifts whose times, stretched so that the last level is `terminal`, go through the first of them: bisection."""
    first = inner[0][1]

    def at(shift: float) -> float:
        t = [1 - shift * (1 - q) / (1 + (shift - 1) * (1 - q)) for q in (1 / steps, (steps - 1) / steps)]
        return t[0] * (1 - terminal) / t[1]

    low, high = 1e-2, 1e2
    if 0 < terminal < 1 and at(high) < first < at(low):
        for _ in range(80):
            middle = math.sqrt(low * high)
            low, high = (middle, high) if at(middle) > first else (low, middle)
        yield _rounded(low)


def _rounded(value: float, digits: int = 3) -> float:
    return float(f"{value:.{digits}g}")
