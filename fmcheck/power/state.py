"""Faults in the state that the loop hands the network."""

from typing import Any

import torch
from torch import Tensor

from fmcheck.power.fault import Call, around, on_input

__all__: list[str] = []


@on_input("velocity", "x", rules=("FM502", "FM501"))
def state_rounded_to_bfloat16(x: Tensor, call: Call) -> Tensor:
    """The state goes through bfloat16 on its way to the network."""
    return x.bfloat16().to(x.dtype)


@on_input("velocity", "x", rules=("FM502",))
def state_in_bfloat16(x: Tensor, call: Call) -> Tensor:
    """The state is passed to the network as bfloat16."""
    return x.bfloat16()


@on_input("velocity", "x", rules=("FM507", "FM110"))
def state_in_float64(x: Tensor, call: Call) -> Tensor:
    """The state is passed to the network as float64."""
    return x.double()


@around("velocity", rules=("FM104", "FM401"), needs=("velocity.x",))
def state_transposed(call: Call) -> Any:
    """The network is handed the state with height and width exchanged, and its output is exchanged back."""
    x = call.get("x")
    if not isinstance(x, Tensor) or x.dim() < 4:
        call.refuse("the state has no two axes of a picture")
        return call.go()
    call.set("x", x.transpose(-1, -2).contiguous())
    returned = call.go()
    v = call.tensor(returned)
    return returned if v is None else call.put(returned, v.transpose(-1, -2).contiguous())


@on_input("velocity", "x", rules=("FM501", "FM801"))
def neighbour_leaks_into_the_state(x: Tensor, call: Call) -> Tensor:
    """One percent of the next row's state is mixed into every row before the network sees it."""
    return x.lerp(x.roll(1, 0), 0.01)


@on_input("velocity", "x", rules=("FM707", "FM716"))
def global_noise_in_the_state(x: Tensor, call: Call) -> Tensor:
    """Noise of the process's global generator is added to the state in every step."""
    return x + 0.01 * torch.randn(x.shape).to(x)


@on_input("velocity", "x", rules=("FM716",))
def callers_noise_in_the_state(x: Tensor, call: Call) -> Tensor:
    """Noise of the caller's generator is added to the state in every step, as if the flow were stochastic."""
    generator = call.request.generator
    return x + 0.01 * torch.randn(x.shape, generator=generator, device=generator.device).to(x)


@on_input("velocity", "x", rules=("FM302", "FM501"))
def state_never_moves(x: Tensor, call: Call) -> Tensor:
    """The network is handed the first state in every step."""
    first: Tensor = call.memory.run.setdefault("state", x.detach().clone())
    return first if first.shape == x.shape else x


@on_input("velocity", "x", rules=("FM501", "FM401"))
def state_clamped(x: Tensor, call: Call) -> Tensor:
    """The state is clamped to [-1, 1] before the network sees it."""
    return x.clamp(-1, 1)


@on_input("velocity", "x", rules=("FM303", "FM401"))
def state_one_percent_too_large(x: Tensor, call: Call) -> Tensor:
    """The state is multiplied by 1.01 before the network sees it, as by a scaling for another scheduler."""
    return x * 1.01


@on_input("velocity", "x", rules=("FM202",))
def halves_at_different_states(x: Tensor, call: Call) -> Tensor:
    """The unconditional half of a doubled call is handed another state than the conditional one."""
    if call.subject.spec.guidance_layout.startswith("separate") or len(x) != 2 * call.batch:
        call.refuse("no call of the velocity holds two halves: guidance is off, or its branches are separate calls")
        return x
    return torch.cat([x[: call.batch], x[call.batch :] * 0.9])


@around("velocity", rules=("FM710",), needs=("velocity.x",), side="network")
def state_changed_in_place(call: Call) -> Any:
    """The network scales the state that it is handed in place."""
    x = call.get("x")
    returned = call.go()
    if isinstance(x, Tensor) and not x.requires_grad:
        with torch.no_grad():
            x.mul_(1.01)
        call.did()
    return returned
