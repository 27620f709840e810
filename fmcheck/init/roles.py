"""Which of the watched callables is the velocity network, and what its arguments are: told from what they did."""

import itertools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fmcheck.init.explore import Seen, Watched, tensors_in

__all__ = ["Evaluation", "Velocity", "evaluations", "find_velocity"]

_TIME_NAMES = ("t", "time", "timestep", "timesteps", "sigma", "log_snr")


@dataclass
class Velocity:
    """The network: its path, which argument is what, where its output is; `others` could be it as well."""

    path: str
    state: str
    time: str
    null: str | None
    output: str | int | None
    others: list[str]
    calls: int

    def out(self, call: Seen) -> Tensor:
        found = call.output_like(call.inputs[self.state].shape)
        if found is None:
            raise ValueError(self.path)
        return found.double()


def _time(value: Any, rows: int) -> float | None:
    """The time argument as one number: a number, or a tensor of one or of `rows` equal entries."""
    if isinstance(value, bool) or not isinstance(value, int | float | Tensor):
        return None
    if not isinstance(value, Tensor):
        return float(value)
    if value.dtype == torch.bool or value.numel() not in (1, rows) or not value.numel():
        return None
    flat = value.reshape(-1).double()
    return float(flat[0]) if bool((flat == flat[0]).all()) else None


def _arguments(calls: list[Seen]) -> tuple[str, str] | None:
    """`(state, time)`: the state has the shape of the output, and changes; the time moves one way from call to call."""
    first = calls[0]
    for state, value in first.inputs.items():
        if not isinstance(value, Tensor) or value.dim() < 3 or not value.is_floating_point():
            continue
        if any(
            not isinstance(c.inputs.get(state), Tensor) or c.output_like(c.inputs[state].shape) is None for c in calls
        ):
            continue
        if all(torch.equal(calls[0].inputs[state], c.inputs[state]) for c in calls[1:]):
            continue
        names = sorted(first.inputs, key=lambda name: name not in _TIME_NAMES)
        for name in names:
            times = [_time(c.inputs.get(name), len(c.inputs[state])) for c in calls]
            if name != state and _monotone(times):
                return state, name
    return None


def _monotone(times: list[float | None]) -> bool:
    known = [t for t in times if t is not None]
    if len(known) != len(times) or len(set(known)) < 2:
        return False
    steps = [b - a for a, b in itertools.pairwise(known)]
    return all(s >= 0 for s in steps) or all(s <= 0 for s in steps)


def find_velocity(watched: Watched, steps: int) -> Velocity | None:
    """The callable that is handed the most rows of states with a moving time; of nested ones the outermost.

    A function that combines two branches sees half of the rows that its network sees, and a scheduler's step, which
    looks alike, is no network: modules come first.
    """
    found: list[tuple[tuple[int, int, int], str, tuple[str, str]]] = []
    for path in dict.fromkeys(call.path for call in watched.calls):
        calls = [c for c in watched.of(path) if not any(c.inside(other) for other in watched.of(path))]
        arguments = _arguments(calls) if len(calls) >= steps else None
        if arguments is not None:
            rows = sum(len(c.inputs[arguments[0]]) for c in calls)
            holds = any(other.module and other.inside(calls[0]) for other in watched.calls)
            found.append(((-rows, not (calls[0].module or holds), calls[0].start), path, arguments))
    if not found:
        return None
    found.sort(key=lambda entry: entry[0])
    path, (state, time) = found[0][1:]
    calls = watched.of(path)
    return Velocity(
        path, state, time, _null(calls, state, time), _key(calls[0], state), [f[1] for f in found[1:]], len(calls)
    )


def _null(calls: list[Seen], state: str, time: str) -> str | None:
    """The argument with one flag a row that tells the branches apart."""
    for name, value in calls[0].inputs.items():
        if name in (state, time) or not isinstance(value, Tensor) or value.is_floating_point():
            continue
        flags = [c.inputs.get(name) for c in calls]
        if all(
            isinstance(f, Tensor) and f.shape == c.inputs[state].shape[:1] for f, c in zip(flags, calls, strict=True)
        ):
            values = torch.cat([f.reshape(-1).long() for f in flags])  # type: ignore[union-attr]
            if set(values.tolist()) == {0, 1}:
                return name
    return None


def _key(call: Seen, state: str) -> str | int | None:
    """Where the prediction is in what is returned, when it is not the first tensor."""
    shape = call.inputs[state].shape
    if call.output is not None and call.output.shape == shape:
        return None
    if isinstance(call.returned, dict):
        return next((k for k, v in call.returned.items() if isinstance(v, Tensor) and v.shape == shape), None)
    if isinstance(call.returned, list | tuple):
        return next((i for i, v in enumerate(call.returned) if isinstance(v, Tensor) and v.shape == shape), None)
    return None


@dataclass
class Evaluation:
    """One evaluation in float64: the state, the time as it was told, the prediction(s) in the order they were made.

    `layout` is `doubled`, `separate` or `single`; `null` holds the indicator of the first and the second branch.
    """

    x: Tensor
    time: float
    first: Tensor
    second: Tensor | None
    layout: str
    null: tuple[bool | None, bool | None]

    @property
    def columns(self) -> list[Tensor]:
        return [self.first] if self.second is None else [self.first, self.second]


def evaluations(watched: Watched, network: Velocity, batch: int) -> list[Evaluation]:
    """The calls of a run put together: two halves, two calls, or parts of the batch."""
    pieces: list[Evaluation] = []
    calls = [c for c in watched.of(network.path) if not any(c.inside(o) for o in watched.of(network.path))]
    for call in calls:
        pieces += _pieces(call, network, batch, pieces)
    done: list[Evaluation] = []
    for piece in pieces:
        last = done[-1] if done else None
        if last is not None and len(last.x) < batch and last.time == piece.time and last.layout == piece.layout:
            done[-1] = _joined(last, piece)
        else:
            done.append(piece)
    return done


def _pieces(call: Seen, network: Velocity, batch: int, before: list[Evaluation]) -> list[Evaluation]:
    x, out = call.inputs[network.state].double(), network.out(call)
    time = _time(call.inputs[network.time], len(x))
    flags = call.inputs.get(network.null) if network.null else None
    assert time is not None
    half = len(x) // 2
    if len(x) % 2 == 0 and torch.equal(x[:half], x[half:]) and half:
        null = (bool(flags[0]), bool(flags[-1])) if isinstance(flags, Tensor) else (None, None)
        return [Evaluation(x[:half], time, out[:half], out[half:], "doubled", null)]
    flag = bool(flags[0]) if isinstance(flags, Tensor) else None
    last = before[-1] if before else None
    if last is not None and last.second is None and last.time == time and torch.equal(last.x, x):
        last.second, last.layout, last.null = out, "separate", (last.null[0], flag)
        return []
    return [Evaluation(x, time, out, None, "single", (flag, None))]


def _joined(a: Evaluation, b: Evaluation) -> Evaluation:
    second = torch.cat([a.second, b.second]) if a.second is not None and b.second is not None else None
    return Evaluation(torch.cat([a.x, b.x]), a.time, torch.cat([a.first, b.first]), second, a.layout, a.null)


def constants(call: Seen) -> dict[str, list[float]]:
    """Numbers among the inputs of a call, which may be a guidance scale."""
    found = {}
    for name, value in call.inputs.items():
        for _, tensor in tensors_in(value):
            if tensor.is_floating_point() and tensor.numel() <= 64 and tensor.numel():
                found[name] = tensor.double().reshape(-1).tolist()
        if isinstance(value, int | float) and not isinstance(value, bool):
            found[name] = [float(value)]
    return found
