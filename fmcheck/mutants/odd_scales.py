"""Odd scales: guidance weights, and a dtype without guidance, that no run of the standard plan has."""

from typing import Any

import torch
from torch import Tensor, nn

from fmcheck.mutants.loop import Loop
from fmcheck.mutants.registry import mutant
from fmcheck.mutants.surgery import bind, wrap
from fmcheck.tiny import TinyFlowModel
from fmcheck.tiny.model import TimeGrid


def _use_scale(model: TinyFlowModel, used: Any) -> None:
    """Combine the velocities with another scale than the one that was asked for."""
    wrap(model, "combine", lambda combine, cond, uncond, scale: combine(cond, uncond, used(scale)))


@mutant("FM203", odd=True)
def scale_held_in_float16(model: TinyFlowModel) -> None:
    """The guidance scale is kept in a float16 tensor, which holds round numbers exactly and nothing above 65504."""
    _use_scale(model, lambda scale: float(torch.tensor(scale, dtype=torch.float16)))


@mutant("FM203", odd=True)
def scale_of_one_taken_for_off(model: TinyFlowModel) -> None:
    """Scale 1 skips the combination, as it may where the formula is `u + s (c - u)`."""
    wrap(
        model,
        "combine",
        lambda combine, cond, uncond, scale: cond.float() if scale == 1 else combine(cond, uncond, scale),
    )


@mutant("FM203", odd=True)
def negative_share_of_cond_refused(model: TinyFlowModel) -> None:
    """`1 + w` is kept from becoming negative, and so every weight below -1 is -1."""
    _use_scale(model, lambda scale: max(1 + scale, 0.0) - 1 if scale < -1 else scale)


@mutant("FM203", odd=True)
def share_of_zero_taken_for_unset(model: TinyFlowModel) -> None:
    """`(1 + w) or 1`: at weight -1 the conditional velocity gets back the share that it should lose."""
    _use_scale(model, lambda scale: scale if 1 + scale else 0.0)


@mutant("FM203", odd=True)
def scale_capped_at_thirty(model: TinyFlowModel) -> None:
    """Scales above 30, where the slider of the web page ends, are silently 30."""
    _use_scale(model, lambda scale: min(scale, 30.0))


@mutant("FM501", odd=True)
def state_clamped_to_a_hundred(model: TinyFlowModel) -> None:
    """The state is clamped to [-100, 100] after every step, so that nothing overflows in half precision."""
    Loop(update=lambda x, dt, v: (x + dt * v).clamp(-100.0, 100.0)).install(model)


@mutant("FM109", odd=True)
def tanh_by_exponentials(model: TinyFlowModel) -> None:
    """The decoder's tanh is written as `(exp 2y - 1) / (exp 2y + 1)`, which is NaN once the exponential overflows."""
    codec = model.autoencoder

    def decode(_: Any, latents: Tensor) -> Tensor:
        pixels = nn.functional.pixel_shuffle(codec.to_pixels(codec.decoder(codec.from_latent(latents))), 8)
        power = torch.exp(2 * pixels)
        return (power - 1) / (power + 1)

    bind(codec, "decode", decode)


@mutant("FM502", odd=True)
def state_takes_the_velocitys_dtype(model: TinyFlowModel) -> None:
    """The state takes the dtype of the velocity: float32 where guidance combines it, the network's where none does."""

    def integrate(found: TinyFlowModel, x: Tensor, grid: TimeGrid, scale: float) -> Tensor:
        for t, dt in zip(grid.t_mid, grid.dt, strict=True):
            cond, uncond = found.velocities(x, t, guided=scale != 0)
            v = cond if uncond is None else found.combine(cond, uncond, scale)
            x = (x + dt * v).to(v.dtype)
        return x.float()

    bind(model, "integrate", integrate)
