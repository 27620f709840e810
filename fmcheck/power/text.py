"""Faults in what the text encoder is handed and what becomes of its output."""

import torch
from torch import Tensor

from fmcheck.power.fault import Call, on_input, on_output

__all__: list[str] = []


@on_output("text", rules=("FM401",))
def text_rows_exchanged(z: Tensor, call: Call) -> Tensor:
    """The texts of the prompts are handed on in another order."""
    return z.roll(1, 0)


@on_output("text", rules=("FM401",))
def text_scaled(z: Tensor, call: Call) -> Tensor:
    """The text encoder's output is multiplied by 1.1."""
    return z * 1.1


@on_output("text", rules=("FM707", "FM401"))
def global_noise_in_the_text(z: Tensor, call: Call) -> Tensor:
    """Noise of the process's global generator is added to the text encoder's output."""
    return z + 0.01 * torch.randn(z.shape).to(z)


@on_output("text", rules=("FM401",))
def text_rounded_to_bfloat16(z: Tensor, call: Call) -> Tensor:
    """The text encoder's output goes through bfloat16."""
    return z.bfloat16().to(z.dtype)


@on_output("text", rules=("FM401", "FM806"))
def first_text_for_every_prompt(z: Tensor, call: Call) -> Tensor:
    """Every prompt gets the text of the first one."""
    return z[:1].expand_as(z).clone()


@on_output("text", rules=("FM705", "FM717"))
def text_cached_for_ever(z: Tensor, call: Call) -> Tensor:
    """The text encoder's first output is used again in every later call of the same size."""
    kept: Tensor = call.memory.ever.setdefault(f"text {tuple(z.shape)} {z.dtype}", z.detach().clone())
    return kept


@on_input("text", "attention_mask", rules=("FM805", "FM804"))
def text_mask_ignored(mask: Tensor, call: Call) -> Tensor:
    """The text encoder attends to padding as to words."""
    return torch.ones_like(mask)


@on_output("text", rules=("FM405", "FM803"), side="network")
def neighbour_leaks_into_the_text(z: Tensor, call: Call) -> Tensor:
    """The text encoder itself mixes one percent of the next row into every row."""
    return z.lerp(z.roll(1, 0), 0.01)
