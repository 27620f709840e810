"""FM3: time resolution: times that differ stay different on their way into the network."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fmcheck.case import Case
from fmcheck.errors import NotInformative
from fmcheck.plan import Plan, Run
from fmcheck.record.disturb import change_input
from fmcheck.rules.evidence import exact, require
from fmcheck.rules.registry import Check, rule
from fmcheck.spec import FlowSpec
from fmcheck.tolerance import rounding_shows
from fmcheck.wish import Wish

# A time axis of a thousand: the finest that integer timesteps have.
_SPACING = 1e-3
# Places on the path, one a network call, and neighbouring times at each, one a row.
_PLACES, _ROWS = 12, 12


def _ladders(plan: Plan) -> dict[str, Wish]:
    """Every row has the state that the first row starts at; its time is its own in a ladder run, and one in a level."""
    lower = plan.low_precision
    dtypes = [plan.native.dtype] + ([lower.case.dtype] if lower else [])
    runs = {}
    for dtype in dtypes:
        case = plan.small.but(dtype=dtype, num_steps=_PLACES, prompts=plan.native.prompts[:1] * _ROWS)
        for kind, spacing in (("ladder", _SPACING), ("level", 0.0)):
            runs[f"{kind} {dtype}"] = _on_times(case, plan.subject.spec, kind, spacing)
    return runs


def _on_times(case: Case, spec: FlowSpec, kind: str, spacing: float) -> Wish:
    offset, slope = spec.time_map
    calls = iter(range(10**6))
    start: list[Tensor] = []

    def change(inputs: dict[str, Any]) -> dict[str, Any]:
        x, time = inputs.get("x"), inputs.get("time")
        if not isinstance(x, Tensor) or not isinstance(time, Tensor) or time.shape != x.shape[:1]:
            raise NotInformative("the network is not told one time a row, so rows cannot have times of their own")
        told = (offset + slope * _window(next(calls) % _PLACES, len(x), spacing)).to(time.device, time.dtype)
        if not start or start[0].shape[1:] != x.shape[1:]:
            start[:] = [x[:1].clone()]
        # Where huge guidance takes the state, a time may rightly be less than its rounding.
        return {"x": start[0].to(x).expand_as(x).contiguous(), "time": told}

    return Wish(f"{kind}-{case.dtype}", case, disturbances=(change_input(f"a {kind} of times", "velocity", change),))


@rule("FM311", "times-merge", needs=("velocity", "velocity.time"), wishes=_ladders)
def times_merge(runs: Mapping[str, Run]) -> Iterator[Check]:
    """Times a thousandth apart stay apart in the network: `t != t'` gives `v(x, t) != v(x, t')`, in any dtype.

    How it goes wrong: the log-SNR or the timestep is cast to the network's dtype before it is embedded (of 1,001 evenly
    spaced times bfloat16 keeps 507), sinusoids of large numbers are taken in a short dtype, a table of few entries is
    looked up. The network is then told one time in several steps, and in training a coarser one than its state has.

    Checked: the recorder gives all rows of all calls one state, and times a thousandth apart; at twelve places of the
    path neighbouring rows must get different velocities. Rows that differ although their times are equal (kernels,
    other inputs of a row) are left out. In the native dtype merged times are an error when it is float32, else a
    warning: released pipelines do cast, and a sampler of few steps does not notice.

    Fix: embed the time in float32 and cast the embedding, with frequencies high enough to tell it in that dtype.
    Source: property H of the collected defects; IEEE 754 for the spacing of bfloat16.
    """
    for name, run in runs.items():
        kind, _, dtype = name.partition(" ")
        if kind == "level":
            continue
        told = list(_pairs(run, runs[f"level {dtype}"]))
        require(
            bool(told),
            f"in {dtype} no velocities of one state can tell times apart: they change by less than their rounding, or "
            "rows differ in another way",
        )
        merged = sum(told)
        yield exact(
            merged == 0,
            f"in {dtype} the network tells {len(told) - merged} of {len(told)} neighbouring times apart, "
            f"which are {_SPACING:g} apart on the path",
            where=f"run {run.name}",
            severity="error" if dtype in ("float32", "float64") else "warning",
            diagnosis=partial(_explain, merged / len(told), run.subject.spec),
        )


def _pairs(ladder: Run, level: Run) -> Iterator[bool]:
    """Whether two neighbouring rows have one velocity, for every pair that only their times could tell apart."""
    require(ladder.failure is None and level.failure is None, "the network refuses times of rows")
    calls = zip(ladder.trace.of("velocity"), level.trace.of("velocity"), strict=False)
    for one, other in calls:
        if one.output is None or other.output is None or not bool(other.output.any()):
            continue
        for row in range(2, len(one.output) - 3):
            # The middle pair of six rows: a curved velocity moves there as fast as on the mean of all six.
            near = slice(row - 2, row + 4)
            level_rows = all(torch.equal(other.output[row], neighbour) for neighbour in other.output[near])
            if level_rows and rounding_shows(one.output[near]):
                yield torch.equal(one.output[row], one.output[row + 1])


def _explain(share: float, spec: FlowSpec) -> str:
    kept = {}
    offset, slope = spec.time_map
    times = offset + slope * torch.stack([_window(place, _ROWS, _SPACING) for place in range(_PLACES)])
    for dtype in (torch.bfloat16, torch.float16):
        rounded = times.to(dtype)
        kept[dtype] = float((rounded[:, 1:] == rounded[:, :-1]).double().mean())
    nearest = min(kept, key=lambda dtype: abs(kept[dtype] - share))
    name = str(nearest).removeprefix("torch.")
    if abs(kept[nearest] - share) < 0.1 and kept[nearest] > 0:
        return (
            f"the time argument is rounded to {name} before it is embedded, or its embedding is too coarse for {name}"
        )
    return "the time argument is rounded, or looked up in a coarse table, before it is embedded"


def _window(place: int, rows: int, spacing: float) -> Tensor:
    """Flow times of the rows at one place of the path, float64 `[rows]`.

    A quarter of the usual spacing off whole timesteps, so that neither rounding nor cutting off can merge two of them.
    """
    start = round(place / _PLACES / _SPACING) * _SPACING
    return start + torch.arange(rows, dtype=torch.float64) * spacing + _SPACING / 4
