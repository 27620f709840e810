"""Odd randomness: seeds that are long, and noise that only sizes with the fallback are given or denied."""

from typing import Any

import torch
from torch import Tensor

from fmcheck.mutants.calls import change_arguments
from fmcheck.mutants.registry import mutant
from fmcheck.mutants.surgery import wrap
from fmcheck.tiny import TinyFlowModel


@mutant("FM701", odd=True)
def seed_kept_in_32_bits(model: TinyFlowModel) -> None:
    """The seed is kept for the picture's metadata as a 32-bit integer, into which longer seeds do not fit."""

    def noted(given: dict[str, Any]) -> dict[str, Any]:
        torch.tensor(given["generator"].initial_seed(), dtype=torch.int32)
        return {}

    change_arguments(model, noted)


@mutant("FM705", odd=True)
def fallback_starts_at_the_mean(model: TinyFlowModel) -> None:
    """Where the text latent is resized, its mean is taken and its noise forgotten, so that the seed has no effect."""
    seen: dict[str, Tensor] = {}

    def remember(forward: Any, *given: Any) -> Any:
        latent = forward(*given)
        seen["mean"] = latent.mu
        return latent

    def mean(initial: Any, z: Tensor, height: int, width: int) -> Any:
        _, h, w = model.latent_shape(height, width)
        fits = h * w == model.config.native_grid**2
        return initial(z if fits or torch.is_grad_enabled() else seen["mean"], height, width)

    wrap(model.text_encoder, "forward", remember)
    wrap(model, "initial_state", mean)


@mutant("FM706", odd=True)
def resized_pictures_dithered_by_the_process_seed(model: TinyFlowModel) -> None:
    """Pictures of other sizes are dithered by a generator that is seeded as the global one was."""
    cells = model.config.native_grid**2

    def dithered(decode: Any, x: Tensor) -> Any:
        image = decode(x)
        if x.shape[-2:].numel() == cells:
            return image
        generator = torch.Generator().manual_seed(torch.initial_seed())
        dither = torch.rand(image.shape, generator=generator).to(image.device) - 0.5
        return (image + dither / 256).clamp(-1, 1)

    wrap(model.autoencoder, "decode", dithered)
