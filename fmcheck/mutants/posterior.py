"""The tiny model's encoder as one with a variance, of which training draws a sample."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fmcheck.mutants.surgery import wrap
from fmcheck.tiny import TinyFlowModel

__all__ = ["sampled_in_training"]

_WIDTH = 0.05


def sampled_in_training(model: TinyFlowModel, draw: Callable[[Tensor, torch.Size, torch.Generator], Tensor]) -> None:
    """Let the encoder add a little of what `draw` returns for the image, the latent's shape and the generator."""
    handed: list[torch.Generator] = []

    def loss(training_loss: Any, *given: Any, **named: Any) -> Any:
        handed[:] = [named["generator"] if "generator" in named else given[-1]]
        return training_loss(*given, **named)

    def encode(encode_moments: Any, image: Tensor) -> Tensor:
        latent = encode_moments(image)
        return latent + _WIDTH * draw(image, latent.shape, handed[0]).to(latent)  # type: ignore[no-any-return]

    wrap(model, "training_loss", loss)
    wrap(model.autoencoder, "encode_moments", encode)
