"""Faults in the time and the null indicator that the loop tells the network."""

import torch
from torch import Tensor

from fmcheck.power.fault import Call, on_input

__all__: list[str] = []


@on_input("velocity", "time", rules=("FM302", "FM304", "FM307"))
def time_one_step_late(time: Tensor, call: Call) -> Tensor:
    """The network is told the time of the step before; in the first step its own."""
    seen: list[Tensor] = call.memory.run.setdefault("times", [])
    # Two calls of one step are told the same time.
    if not seen or not torch.equal(seen[-1].flatten()[:1], time.flatten()[:1]):
        seen.append(time)
    return seen[max(0, len(seen) - 2)].flatten()[:1].expand(time.numel()).reshape(time.shape).clone()


@on_input("velocity", "time", rules=("FM302", "FM304"))
def time_constant(time: Tensor, call: Call) -> Tensor:
    """Every call of a run is told the time of the first one."""
    first: Tensor = call.memory.run.setdefault("time", time)
    return first if first.shape == time.shape else first.flatten()[:1].expand(time.numel()).reshape(time.shape).clone()


@on_input("velocity", "time", rules=("FM101",))
def time_with_another_axis(time: Tensor, call: Call) -> Tensor:
    """The times of the rows are told as `[N, 1]`."""
    return time.reshape(-1, 1)


@on_input("velocity", "time", rules=("FM101",))
def time_of_the_first_row_only(time: Tensor, call: Call) -> Tensor:
    """One time is told for all rows, `[1]`."""
    return time.reshape(-1)[:1]


@on_input("velocity", "time", rules=("FM102",))
def time_in_bfloat16(time: Tensor, call: Call) -> Tensor:
    """The time is cast to bfloat16 before the network gets it."""
    return time.bfloat16()


@on_input("velocity", "time", rules=("FM102", "FM304"))
def time_rounded_to_bfloat16(time: Tensor, call: Call) -> Tensor:
    """The time goes through bfloat16 and comes back in its own dtype."""
    return time.bfloat16().to(time.dtype)


@on_input("velocity", "time", rules=("FM102",))
def time_in_float64(time: Tensor, call: Call) -> Tensor:
    """The time is cast to float64."""
    return time.double()


@on_input("velocity", "time", rules=("FM304", "FM307"))
def time_halved(time: Tensor, call: Call) -> Tensor:
    """Half of the time argument is told."""
    return time / 2 if time.is_floating_point() else time // 2


@on_input("velocity", "time", rules=("FM307", "FM302"))
def time_runs_backwards(time: Tensor, call: Call) -> Tensor:
    """The time argument is mirrored: the network is told `1 - t` for `t`."""
    offset, slope = call.subject.spec.time_map
    return (2 * offset + slope - time).to(time.dtype)


@on_input("velocity", "null", rules=("FM201",))
def null_inverted(null: Tensor, call: Call) -> Tensor:
    """The null indicator is inverted: conditional rows are told to be unconditional."""
    return ~null if null.dtype == torch.bool else (null == 0).to(null.dtype)


@on_input("velocity", "null", rules=("FM201",))
def null_never(null: Tensor, call: Call) -> Tensor:
    """No row is told to be unconditional."""
    return torch.zeros_like(null)


@on_input("velocity", "null", rules=("FM201",))
def null_always(null: Tensor, call: Call) -> Tensor:
    """Every row is told to be unconditional."""
    return torch.ones_like(null)


@on_input("velocity", "null", rules=("FM103",))
def null_as_numbers(null: Tensor, call: Call) -> Tensor:
    """The null indicator is passed as float32."""
    return null.float()
