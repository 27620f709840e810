"""The times of a run: edges of the steps, step sizes, and what the network was told, expected and observed."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fmcheck.errors import missing
from fmcheck.flow import time_edges
from fmcheck.plan import Run
from fmcheck.spec import FlowSpec
from fmcheck.tolerance import fit_bound, fit_errors, step_bound, time_bound

__all__ = ["Numbers", "Steps", "Told", "numbers", "path_log_snr", "quantile_curve", "steps_of", "told_of"]

Numbers = tuple[float, ...]

_CURVE = 200


@dataclass(frozen=True, kw_only=True)
class Steps:
    """The steps of a run against the declared grid.

    Attributes:
        edges: reference edges in flow time, `K + 1`.
        lengths: reference step sizes, `K`.
        taken: the length of every step that was made, recovered from the state; NaN where it cannot be.
        passed: the edges that these lengths lead to from the first reference edge, one more than `taken`.
        allowed: how far every length may be off; NaN where it was not recovered.
        reason: why no length can be recovered at all; empty otherwise.
    """

    edges: Numbers
    lengths: Numbers
    taken: Numbers
    passed: Numbers
    allowed: Numbers
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Told:
    """The time that the network was told, one entry an evaluation that was made or is declared.

    Attributes:
        name: the spec's word for the argument; `offset`, `slope` of its map from flow time.
        position: where the evaluation lies in units of steps: 2.5 is the middle of step 2.
        times: flow time of the first row; `low` and `high` of all rows; NaN for an evaluation that was not made.
        expected: the declared flow time; NaN for an evaluation beyond those that are declared.
        allowed: how far a time may be off.
        made, declared: how many evaluations there are.
        sigma_min: width of the path at the data end.
    """

    name: str
    offset: float
    slope: float
    position: Numbers
    times: Numbers
    low: Numbers
    high: Numbers
    expected: Numbers
    allowed: Numbers
    made: int
    declared: int
    sigma_min: float

    @property
    def map(self) -> str:
        """The map from flow time to the argument, as a formula."""
        times = "t" if abs(self.slope) == 1 else f"{abs(self.slope):g} t"
        if self.offset == 0:
            told = f"-{times}" if self.slope < 0 else times
        else:
            told = f"{self.offset:g} {'-' if self.slope < 0 else '+'} {times}"
        return self.name if told == self.name else f"{self.name} = {told}"

    @property
    def apart(self) -> bool:
        """Whether rows of one evaluation have several times."""
        return any(low < high for low, high in zip(self.low, self.high, strict=True))

    @property
    def beyond(self) -> tuple[int, ...]:
        """Entries that are further off than is allowed."""
        rows = enumerate(zip(self.times, self.expected, self.allowed, strict=True))
        return tuple(i for i, (time, expected, allowed) in rows if abs(time - expected) > allowed)

    def argument(self, times: Numbers) -> Numbers:
        """Flow times in the user's own units."""
        return tuple(self.offset + self.slope * time for time in times)

    def log_snr(self, times: Numbers) -> Numbers:
        """Log signal-to-noise ratio of the path at flow times."""
        return tuple(path_log_snr(time, self.sigma_min) for time in times)


def path_log_snr(time: float, sigma_min: float) -> float:
    """`2 ln(t / (1 - (1 - s_min) t))` of the path `x_t = (1 - (1 - s_min) t) x0 + t x1`; infinite at its ends, and NaN
    outside of them."""
    noise = 1 - (1 - sigma_min) * time
    if math.isnan(time) or time < 0 or noise < 0:
        return math.nan
    if time == 0:
        return -math.inf
    return math.inf if noise == 0 else 2 * (math.log(time) - math.log(noise))


def quantile_curve(spec: FlowSpec) -> tuple[Numbers, Numbers]:
    """Level and value of the quantile function that a logit-normal grid is made of; empty for other grids."""
    if spec.grid != "logit_normal":
        return (), ()
    low, high = spec.grid_clamp, 1 - spec.grid_clamp
    levels = tuple(low + (high - low) * k / _CURVE for k in range(_CURVE + 1))
    return tuple(k / _CURVE for k in range(len(levels))), numbers(time_edges(_CURVE, spec))


def steps_of(run: Run) -> Steps:
    """The steps that the state really took.

    Raises:
        NotInformative: the calls cannot be read as evaluations, or the declared grid is that of another size.
    """
    reading = run.reading
    edges, lengths = numbers(reading.edges), numbers(reading.steps_dt)
    made = len(reading.steps)
    reason = missing(lambda: reading.full_moves)
    taken, allowed = [math.nan] * made, [math.nan] * made
    if reason is None:
        bounds = numbers(step_bound(reading, torch.float32))
        for move in reading.full_moves:
            if move.coefficients.determined and bool((move.leftover <= fit_bound(move)).all()):
                taken[move.step] = move.coefficients.dt
                of_grid = bounds[move.step] if move.step < len(bounds) else 0.0
                allowed[move.step] = of_grid + fit_errors(move).dt
        if all(math.isnan(length) for length in taken):
            reason = "no change of the state is a step along the recorded velocities (see FM501, FM601)"
    passed = [edges[0]]
    for length in taken:
        passed.append(passed[-1] + length)
    return Steps(
        edges=edges,
        lengths=lengths,
        taken=tuple(taken),
        passed=tuple(passed),
        allowed=tuple(allowed),
        reason=reason or "",
    )


def told_of(run: Run) -> Told:
    """What the network was told.

    Raises:
        NotInformative: the calls cannot be read as evaluations, or the declared grid is that of another size.
    """
    reading, spec = run.reading, run.subject.spec
    declared = reading.evaluation_times.flatten().tolist()
    bounds = numbers(time_bound(reading, reading.argument_dtype))
    if reading.saves_last_corrector:
        declared = declared[:-1]
    made = reading.evaluations
    rows: list[tuple[float, ...]] = []
    for i in range(max(len(made), len(declared))):
        k = i // spec.stages
        expected, allowed = (declared[i], bounds[i]) if i < len(declared) else (math.nan, math.nan)
        place = k + (_share(reading.edges, k, expected) if i < len(declared) else 0.0)
        told = made[i].time_rows if i < len(made) else torch.full((1,), math.nan)
        rows.append((place, float(told[0]), float(told.min()), float(told.max()), expected, allowed))
    position, times, low, high, reference, slack = zip(*rows, strict=True)
    offset, slope = spec.time_map
    return Told(
        name=spec.time_argument,
        offset=offset,
        slope=slope,
        position=position,
        times=times,
        low=low,
        high=high,
        expected=reference,
        allowed=slack,
        made=len(made),
        declared=len(declared),
        sigma_min=spec.sigma_min,
    )


def _share(edges: Tensor, k: int, time: float) -> float:
    """Where in step k a time lies, 0 at its start."""
    length = float(edges[k + 1] - edges[k])
    return (time - float(edges[k])) / length if length else 0.0


def numbers(tensor: Tensor) -> Numbers:
    return tuple(tensor.detach().cpu().double().flatten().tolist())
