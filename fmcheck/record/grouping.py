"""Network calls put together to evaluations of the velocity field, whatever halves, parts and order they came in."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from fmcheck.errors import NotInformative
from fmcheck.flow import as_velocity, from_argument, rescaling
from fmcheck.record.trace import Call
from fmcheck.spec import FlowSpec
from fmcheck.tensors import describe, joined

__all__ = ["Evaluation", "Grouping", "flow_times"]


@dataclass
class Evaluation:
    """One evaluation of the velocity field, however many network calls it took.

    Attributes:
        calls: numbers of the network calls.
        time_rows: flow time of every row, float64 `[B]` or `[2B]`, conditional rows first.
        x_cond, x_uncond: states `[B, ...]` that the two branches were given.
        v_cond, v_uncond: dx/dt `[B, ...]` in float64; `v_uncond` is None when that branch was not evaluated.
        velocity_dtype: dtype in which the network returned them.
        time_dtype: dtype of the time argument, float32 when it was a number or an integer.
    """

    calls: list[int]
    time_rows: Tensor
    x_cond: Tensor
    x_uncond: Tensor | None
    v_cond: Tensor
    v_uncond: Tensor | None
    velocity_dtype: torch.dtype
    time_dtype: torch.dtype

    @cached_property
    def time(self) -> float:
        """Flow time of the first row; rule FM308 holds the others to it."""
        return float(self.time_rows[0])


@dataclass
class _Rows:
    """Rows of one branch in one call."""

    x: Tensor
    time: Tensor
    output: Tensor
    call: Call


class Grouping:
    """Puts network calls together to evaluations with B conditional rows and, when made, B unconditional ones.

    `both` says whether both branches are evaluated. At the neutral scale a loop may evaluate one or both; the number
    of rows tells which, given how many `evaluations` the case asks for. `weight_at` is the guidance weight at a flow
    time; where the spec declares that the combined prediction is scaled, both velocities are scaled like it, so that
    the state moves along `(1 + w) v_cond - w v_uncond` all the same.

    Raises:
        NotInformative: a call was given no state with rows.
    """

    def __init__(
        self,
        spec: FlowSpec,
        calls: list[Call],
        batch: int,
        *,
        guided: bool,
        evaluations: int,
        weight_at: Callable[[float], float],
    ) -> None:
        self.spec, self.batch, self._weight_at = spec, batch, weight_at
        self._calls = calls
        self._separate = spec.guidance_layout.startswith("separate")
        rows = sum(len(_state_of(call)) for call in calls)
        # A Heun sampler that saves its last corrector makes fewer evaluations, and in one step half of them.
        saved = spec.solver == "heun" and any(map(_same_request, calls, calls[1:]))
        self.both = guided or rows > batch * evaluations or (saved and rows >= 2 * batch * (evaluations - 1))

    @cached_property
    def doubled_calls(self) -> frozenset[int]:
        """Numbers of the calls that hold both halves."""
        return frozenset(call.number for call in self._calls if self._doubled(_state_of(call)))

    @cached_property
    def in_parts(self) -> bool:
        """Whether a part of the prompts goes through all steps before the next part."""
        return bool(self._loops)

    @cached_property
    def evaluations(self) -> list[Evaluation]:
        """The evaluations that the calls add up to.

        Raises:
            NotInformative: they do not, or a call has no readable state, velocity or time.
        """
        one_after_the_other = self._loops
        if one_after_the_other:
            return [_joined(parts) for parts in zip(*(loop.evaluations for loop in one_after_the_other), strict=True)]
        calls = self._calls
        found: list[Evaluation] = []
        cond: list[_Rows] = []
        uncond: list[_Rows] = []
        for index, call in enumerate(calls):
            to_cond, to_uncond = self._split(call, cond, uncond)
            cond += to_cond
            uncond += to_uncond
            if max(_count(cond), _count(uncond)) > self.batch:
                raise NotInformative(self._unreadable(call))
            following = calls[index + 1] if index + 1 < len(calls) else None
            if self._complete(cond, uncond, call, following):
                found.append(self._evaluation(cond, uncond))
                cond, uncond = [], []
        if cond or uncond:
            raise NotInformative(self._unreadable(calls[-1]))
        return found

    @cached_property
    def _loops(self) -> list["Grouping"]:
        """The loops of a sampler that takes a part of the prompts through all its steps before the next part.

        Their times start anew with every part; within one loop they never repeat as a whole.
        """
        calls, times = self._calls, [_first_time(call) for call in self._calls]
        for parts in range(2, self.batch + 1):
            size = len(calls) // parts
            alike = len(calls) % parts == 0 and times == times[:size] * parts and len(set(times)) > 1
            if alike and self.batch % parts == 0:
                starts = range(0, len(calls), size)
                return [self._of(calls[i : i + size], self.batch // parts) for i in starts]
        return []

    def _of(self, calls: list[Call], batch: int) -> "Grouping":
        """The same reading of some of the calls."""
        known = self.spec, calls, batch
        return Grouping(*known, guided=self.both, evaluations=len(calls), weight_at=self._weight_at)

    def _unreadable(self, call: Call) -> str:
        rows = len(_state_of(call))
        reason = (
            f"{call.name} has {rows} rows; the calls do not add up to evaluations of {self.batch} conditional "
            f"and {self.batch} unconditional rows in the layout {self.spec.guidance_layout!r}"
        )
        if rows > 2 * self.batch and rows % self.batch == 0:
            reason += f" ({rows // self.batch} guidance branches? Only two can be declared)"
        return reason

    def _split(self, call: Call, cond: list[_Rows], uncond: list[_Rows]) -> tuple[list[_Rows], list[_Rows]]:
        x, output = _state_of(call), call.output
        if output is None or x.dim() < 2 or x.shape != output.shape:
            raise NotInformative(f"{call.name}: its state and velocity are not tensors of one shape")
        if not (x.is_floating_point() and output.is_floating_point()) or x.is_meta or output.is_meta:
            raise NotInformative(f"{call.name}: its state is {describe(x)} and its velocity {describe(output)}")
        rows = _Rows(x, flow_times(call.inputs.get("time"), x.shape[0], self.spec, call.name), output, call)
        null = _null_of(call)
        if null is not None and bool(null.any()) and not bool(null.all()) and not self._doubled(x):
            unconditional = (null == self.spec.null_means_unconditional).to(x.device)
            return [_select(rows, ~unconditional)], [_select(rows, unconditional)]
        if self._doubled(x):
            first, second = _halves(rows)
            return ([second], [first]) if self.spec.guidance_layout == "uncond_first" else ([first], [second])
        return ([], [rows]) if self._is_uncond(call, x, cond, uncond) else ([rows], [])

    def _doubled(self, x: Tensor) -> bool:
        if x.shape[0] == 2 * self.batch:
            return True
        if self._separate or x.shape[0] % 2 or not self.both:
            return False
        first, second = x.chunk(2)
        return _equal(first, second)

    def _is_uncond(self, call: Call, x: Tensor, cond: list[_Rows], uncond: list[_Rows]) -> bool:
        null = _null_of(call)
        if null is not None:
            return bool((null == self.spec.null_means_unconditional).all())
        if not self._separate or not self.both:
            return False
        # Without an indicator, the second branch is told from the next part of the first by its state.
        first, second = (cond, uncond) if self.spec.guidance_layout == "separate" else (uncond, cond)
        answers = _count(first) >= self.batch or _answers(x, first, _count(second))
        return answers == (self.spec.guidance_layout == "separate")

    def _complete(self, cond: list[_Rows], uncond: list[_Rows], call: Call, following: Call | None) -> bool:
        if _count(cond) == self.batch and _count(uncond) == self.batch:
            return True
        if _count(cond) < self.batch or uncond:
            return False
        # All conditional rows and no unconditional one: done, unless the next call is the other branch of the
        # same evaluation. Heun's second stage has the same number of rows but another state or another time.
        return following is None or not self.both or not _same_request(cond[0].call, following)

    def _evaluation(self, cond: list[_Rows], uncond: list[_Rows]) -> Evaluation:
        x_cond = joined([rows.x for rows in cond])
        x_uncond = joined([rows.x for rows in uncond]) if uncond else None
        c, u = _output(cond), _output(uncond) if uncond else None
        if u is not None and self.spec.rescales and u.shape == c.shape:
            factor = rescaling(c, u, self._weight_at(float(cond[0].time[0])), self.spec)
            c, u = factor * c, factor * u
        return Evaluation(
            calls=sorted({rows.call.number for rows in cond + uncond}),
            time_rows=torch.cat([rows.time for rows in cond + uncond]),
            x_cond=x_cond,
            x_uncond=x_uncond,
            v_cond=self._velocity(cond, x_cond, c),
            v_uncond=None if x_uncond is None or u is None else self._velocity(uncond, x_uncond, u),
            velocity_dtype=cond[0].output.dtype,
            time_dtype=_float_dtype(cond[0].call.inputs["time"]),
        )

    def _velocity(self, rows: list[_Rows], x: Tensor, output: Tensor) -> Tensor:
        time = joined([part.time for part in rows]).to(output.device)
        return as_velocity(output, x.double(), time, self.spec)


def _output(rows: list[_Rows]) -> Tensor:
    return joined([part.output for part in rows]).double()


def flow_times(value: Any, rows: int, spec: FlowSpec, name: str) -> Tensor:
    """Flow time of every row, float64 `[rows]` on the CPU, from the time argument of a network call.

    Raises:
        NotInformative: there is none, it is no number or NaN, or it has neither one entry nor one a row (`name` is the
            call).
    """
    if value is None:
        raise NotInformative(f"{name} was passed no time argument")
    try:
        time = torch.as_tensor(value).detach().to("cpu", torch.float64).reshape(-1)
    except (TypeError, ValueError, RuntimeError) as error:
        raise NotInformative(f"{name}: its time is no number") from error
    if bool(time.isnan().any()):
        raise NotInformative(f"{name} is told a time that is NaN (see FM109)")
    found = time.shape[0]
    if found not in (1, rows):
        raise NotInformative(f"{name}: {found} times for {rows} rows")
    return from_argument(time.expand(rows) if found == 1 else time, spec)


def _count(rows: list[_Rows]) -> int:
    # Of the shape, since len() of a tensor goes through Python; this is asked for at every call.
    return sum(part.x.shape[0] for part in rows)


def _state_of(call: Call) -> Tensor:
    x = call.inputs.get("x")
    if not isinstance(x, Tensor) or not x.dim():
        raise NotInformative(f"{call.name}: its state is no tensor with rows")
    return x


def _null_of(call: Call) -> Tensor | None:
    """The null indicator, where it has one flag a row."""
    null, rows = call.inputs.get("null"), len(_state_of(call))
    return null.bool() if isinstance(null, Tensor) and null.shape == (rows,) else None


def _float_dtype(time: Any) -> torch.dtype:
    return time.dtype if isinstance(time, Tensor) and time.is_floating_point() else torch.float32


def _select(rows: _Rows, which: Tensor) -> _Rows:
    """The rows of a call that a flag picks: a doubled batch may be cut anywhere."""
    return _Rows(rows.x[which], rows.time[which.cpu()], rows.output[which.to(rows.output.device)], rows.call)


def _halves(rows: _Rows) -> tuple[_Rows, _Rows]:
    parts = zip(rows.x.chunk(2), rows.time.chunk(2), rows.output.chunk(2), strict=True)
    first, second = (_Rows(x, time, output, rows.call) for x, time, output in parts)
    return first, second


def _answers(x: Tensor, first: list[_Rows], done: int) -> bool:
    """Whether `x` are the states of the rows of the first branch that the second one has not answered yet."""
    if _count(first) < done + len(x):
        return False
    waiting = joined([part.x for part in first])[done : done + len(x)]
    return waiting.shape == x.shape and _equal(waiting, x)


def _equal(a: Tensor, b: Tensor) -> bool:
    # A diverged loop is still a loop; FM109 has its NaN.
    return torch.equal(a, b) or torch.equal(a.nan_to_num(), b.nan_to_num())


def _same_request(call: Call, following: Call) -> bool:
    """Whether the next call asks about the same state (a part of it may do) at the same time."""
    x, other = _state_of(call), _state_of(following)
    rows = min(len(x), len(other))
    same_x = x.shape[1:] == other.shape[1:] and _equal(x[:rows], other[:rows])
    return same_x and _first_time(call) == _first_time(following)


def _first_time(call: Call) -> float | None:
    """The time argument of a call's first row; None when it cannot be read."""
    value = call.inputs.get("time")
    if isinstance(value, Tensor):
        return float(value.reshape(-1)[0]) if value.numel() else None
    return float(value) if isinstance(value, int | float) else None


def _joined(parts: tuple[Evaluation, ...]) -> Evaluation:
    """One evaluation of all rows, from those of parts of them."""
    rows = [len(part.x_cond) for part in parts]
    times = [part.time_rows[:n] for part, n in zip(parts, rows, strict=True)]
    times += [part.time_rows[n:] for part, n in zip(parts, rows, strict=True)]
    return Evaluation(
        calls=sorted(number for part in parts for number in part.calls),
        time_rows=torch.cat(times),
        x_cond=torch.cat([part.x_cond for part in parts]),
        x_uncond=_joined_where_all([part.x_uncond for part in parts]),
        v_cond=torch.cat([part.v_cond for part in parts]),
        v_uncond=_joined_where_all([part.v_uncond for part in parts]),
        velocity_dtype=parts[0].velocity_dtype,
        time_dtype=parts[0].time_dtype,
    )


def _joined_where_all(parts: list[Tensor | None]) -> Tensor | None:
    present = [part for part in parts if part is not None]
    return torch.cat(present) if len(present) == len(parts) else None
