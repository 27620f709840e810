"""What the network is told about time, where in its step it is asked, and how long the steps are."""

from dataclasses import dataclass
from itertools import product

import torch

__all__ = ["NAMED", "TimeFit", "fit_time"]

NAMED: dict[str, tuple[float, float]] = {
    "t": (0.0, 1.0),
    "sigma": (1.0, -1.0),
    "timestep": (1000.0, -1000.0),
    "log_snr": (4.0, -8.0),
}
_OTHER = {"1000 t": (0.0, 1000.0)}
_GOOD = 2e-3


@dataclass
class TimeFit:
    """The network is told `offset + slope t`; `name` is the known name of that map, or None.

    `edges` are the flow times at which the steps begin, `sizes` the length of every step but the last, in flow time.
    `residual` is the largest disagreement between steps and told times.
    """

    name: str | None
    offset: float
    slope: float
    point: str
    solver: str
    kind: str
    edges: list[float]
    sizes: list[float]
    residual: float


def fit_time(told: list[float], sizes: list[float], states: list[float], stages: int) -> TimeFit | None:
    """Time map, evaluation point, solver and kind of prediction from the times told and the coefficients solved.

    Args:
        told: time argument at the beginning of every step (first stage).
        sizes: sum of the branch coefficients of every change but the last.
        states: coefficient of the state in it, 0 for a velocity.
        stages: evaluations a step; with 2, the change is that of the first stage.

    Returns None for fewer than two changes.
    """
    # A method of two stages shows its first stage in the last step too, behind which no time is told.
    sizes, states = sizes[: len(told) - 1], states[: len(told) - 1]
    if len(sizes) < 2:
        return None
    kinds = _kinds(sizes, states)
    points = [("left", "euler"), ("midpoint", "euler")] if stages == 1 else [("left", "midpoint"), ("left", "heun")]
    best: TimeFit | None = None
    for kind, (point, solver) in product(kinds, points):
        for name, (offset, slope) in _maps(told, sizes, kind, point, solver).items():
            fit = _judged(told, sizes, kind, point, solver, name, offset, slope)
            if best is None or _better(fit, best):
                best = fit
    return best


def _better(fit: TimeFit, best: TimeFit) -> bool:
    """Whether it agrees better; a named map that agrees is not given up for a fitted one."""
    if best.residual <= _GOOD and (fit.name is None or fit.residual > _GOOD):
        return best.name is None and fit.residual < best.residual / 3
    return fit.residual < best.residual / 3 or (best.name is None and fit.name is not None and fit.residual <= _GOOD)


def _kinds(sizes: list[float], states: list[float]) -> list[str]:
    down = sum(sizes) < 0
    if all(abs(s) < 1e-9 for s in states):
        return ["reverse_velocity" if down else "velocity"]
    return ["x0" if down else "x1"]


def _maps(told: list[float], sizes: list[float], kind: str, point: str, solver: str) -> dict[str, tuple[float, float]]:
    maps = {**NAMED, **_OTHER}
    rising = told[-1] > told[0]
    maps = {name: m for name, m in maps.items() if (m[1] > 0) == rising}
    if "velocity" in kind:
        steps = [abs(s) * (2 if solver == "midpoint" else 1) for s in sizes]
        edges = [sum(steps[:k]) for k in range(len(steps))]
        asked = [e + (s / 2 if point == "midpoint" else 0) for e, s in zip(edges, steps, strict=True)]
        matrix = torch.tensor([[1.0, a] for a in asked], dtype=torch.float64)
        target = torch.tensor(told[: len(asked)], dtype=torch.float64)[:, None]
        offset, slope = torch.linalg.lstsq(matrix, target).solution.reshape(-1).tolist()
        if abs(slope) > 1e-6:
            maps[""] = (float(f"{offset:.5g}"), float(f"{slope:.5g}"))
    return maps


def _judged(
    told: list[float], sizes: list[float], kind: str, point: str, solver: str, name: str, offset: float, slope: float
) -> TimeFit:
    times = [(value - offset) / slope for value in told]
    double = 2 if solver == "midpoint" else 1
    steps = []
    for size, t in zip(sizes, times, strict=False):
        factor = 1.0 if "velocity" in kind else (1 - t if kind == "x1" else t)
        steps.append(abs(size) * factor * double)
    shift = [s / 2 if point == "midpoint" else 0.0 for s in steps]
    starts = [t - d for t, d in zip(times, shift, strict=False)]
    errors = [abs(starts[0])]
    errors += [abs(starts[k] + steps[k] - starts[k + 1]) for k in range(len(steps) - 1)]
    last = starts[-1] + steps[-1]
    if point == "left":
        errors.append(abs(last - times[len(steps)]))
    errors.append(max(0.0, last - 1 - _GOOD))
    known = name if name in NAMED else None
    return TimeFit(known, offset, slope, point, solver, kind, [*starts, last], steps, max(errors))
