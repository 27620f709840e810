"""Faults in what the loop makes of the network's output."""

import torch
from torch import Tensor

from fmcheck.power.fault import Call, on_output

__all__: list[str] = []


def _halves(v: Tensor, call: Call) -> tuple[Tensor, Tensor] | None:
    if call.subject.spec.guidance_layout.startswith("separate") or len(v) != 2 * call.batch:
        call.refuse("no call of the velocity holds two halves: guidance is off, or its branches are separate calls")
        return None
    return v[: call.batch], v[call.batch :]


@on_output("velocity", rules=("FM303", "FM302"))
def velocity_negated(v: Tensor, call: Call) -> Tensor:
    """The state is moved against the velocity that the network returned."""
    return -v


@on_output("velocity", rules=("FM303", "FM305"))
def velocity_one_percent_too_long(v: Tensor, call: Call) -> Tensor:
    """The velocity is multiplied by 1.01 before it is used."""
    return v * 1.01


@on_output("velocity", rules=("FM303", "FM305"))
def velocity_doubled(v: Tensor, call: Call) -> Tensor:
    """The velocity is multiplied by 2 before it is used."""
    return v * 2


@on_output("velocity", rules=("FM203",))
def halves_exchanged(v: Tensor, call: Call) -> Tensor:
    """The conditional and the unconditional half of the output are taken for each other."""
    halves = _halves(v, call)
    return v if halves is None else torch.cat([halves[1], halves[0]])


@on_output("velocity", rules=("FM203",))
def halves_averaged(v: Tensor, call: Call) -> Tensor:
    """Both halves of the output are replaced by their mean, so that guidance does nothing."""
    halves = _halves(v, call)
    return v if halves is None else torch.cat([(halves[0] + halves[1]) / 2] * 2)


@on_output("velocity", rules=("FM203", "FM204"))
def one_branch_for_both(v: Tensor, call: Call) -> Tensor:
    """The conditional velocity is used as the unconditional one as well, in one doubled call or in separate ones."""
    kept: list[Tensor] = call.memory.run.setdefault("branches", [])
    kept.append(v)
    if call.subject.spec.guidance_layout.startswith("separate"):
        # Where guidance is off there is one call a step, and none is a second branch.
        guided = call.subject.spec.guidance_weight(call.request.case.guidance_scale) != 0
        return kept[-2] if guided and len(kept) % 2 == 0 and kept[-2].shape == v.shape else v
    return torch.cat([v[: call.batch]] * 2) if len(v) == 2 * call.batch else v


@on_output("velocity", rules=("FM501",))
def channel_dropped(v: Tensor, call: Call) -> Tensor:
    """The first channel of the velocity is taken for zero."""
    changed = v.clone()
    # Packed tokens have their channels last.
    changed.select(1 if v.dim() > 3 else -1, 0).zero_()
    return changed


@on_output("velocity", rules=("FM501",))
def velocity_rounded_to_bfloat16(v: Tensor, call: Call) -> Tensor:
    """The velocity goes through bfloat16 before it is used."""
    return v.bfloat16().to(v.dtype)


@on_output("velocity", rules=("FM501",))
def velocity_clamped(v: Tensor, call: Call) -> Tensor:
    """The velocity is clamped to half of its largest magnitude."""
    bound = float(v.detach().abs().max()) / 2
    return v.clamp(-bound, bound)


@on_output("velocity", rules=("FM501",))
def velocity_of_the_call_before(v: Tensor, call: Call) -> Tensor:
    """Every step uses the velocity of the step before; the first one its own."""
    kept: list[Tensor] = call.memory.run.setdefault("velocities", [])
    kept.append(v.detach())
    lag = 2 if call.subject.spec.guidance_layout.startswith("separate") else 1
    return kept[-1 - lag] if len(kept) > lag and kept[-1 - lag].shape == v.shape else v


@on_output("velocity", rules=("FM507", "FM501"))
def velocity_in_float64(v: Tensor, call: Call) -> Tensor:
    """The velocity is cast to float64, and the state after it."""
    return v.double()


@on_output("velocity", rules=("FM501", "FM801"))
def neighbour_leaks_into_the_velocity(v: Tensor, call: Call) -> Tensor:
    """One percent of the next row's velocity is mixed into every row, in the loop."""
    return v.lerp(v.roll(1, 0), 0.01)


@on_output("velocity", rules=("FM803", "FM801"), side="network")
def neighbour_leaks_in_the_network(v: Tensor, call: Call) -> Tensor:
    """The network itself mixes one percent of the next row's velocity into every row."""
    return v.lerp(v.roll(1, 0), 0.01)


@on_output("velocity", rules=("FM605",), quiet=True)
def nan_hidden(v: Tensor, call: Call) -> Tensor:
    """NaN in the velocity is replaced by zero, so that a broken network goes unnoticed."""
    call.did()
    return v.nan_to_num()


@on_output("velocity", rules=("FM707", "FM716", "FM706"), side="network")
def network_draws_global_noise(v: Tensor, call: Call) -> Tensor:
    """The network adds noise of the process's global generator to its output, as dropout does that is left on."""
    return v + 0.01 * torch.randn(v.shape).to(v)


@on_output("velocity", rules=("FM501",))
def velocity_mirrored(v: Tensor, call: Call) -> Tensor:
    """The last axis of the velocity is mirrored before it is used."""
    return v.flip(-1)
