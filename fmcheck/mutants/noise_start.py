"""The tiny model as a flow from noise: the start is drawn, and the text latent moves the conditional velocity."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fmcheck.mutants.remodel import remodel
from fmcheck.mutants.surgery import bind, wrap
from fmcheck.subject import Subject
from fmcheck.tiny import TinyFlowModel

__all__ = ["Draw", "Push", "conditional", "normal", "with_noise_start"]

# The source `[B, C, h, w]` of a shape and the caller's generator; the flag says whether it is drawn for training.
Draw = Callable[[tuple[int, ...], torch.Generator, bool], Tensor]

# Share of the prompt's push that each row of the network gets, `[N]`, of the null indicator `[N]`.
Push = Callable[[Tensor], Tensor]


def conditional(null: Tensor) -> Tensor:
    """The prompt moves the conditional rows only."""
    return ~null


def normal(shape: tuple[int, ...], generator: torch.Generator, training: bool) -> Tensor:
    """What a flow from noise starts at."""
    return torch.randn(shape, generator=generator)


def _install(model: TinyFlowModel, draw: Draw, push: Push) -> None:
    handed: list[torch.Generator] = []
    told: list[Tensor] = []

    def text(encode: Any, ids: Tensor, mask: Tensor, generator: torch.Generator) -> Any:
        handed[:] = [generator]
        return encode(ids, mask, None)

    def start(found: TinyFlowModel, features: Tensor, height: int, width: int) -> Tensor:
        shape = len(features), *found.latent_shape(height, width)
        # A number a channel, so that a prompt means the same at every size.
        told[:] = [features.reshape(*shape[:2], -1).mean(-1)]
        return draw(shape, handed[0], torch.is_grad_enabled()).to(features)

    def moved(forward: Any, x: Tensor, times: Tensor, null: Tensor) -> Any:
        pushed = told[0].repeat(len(x) // len(told[0]), 1) * push(null).unsqueeze(1)
        return forward(x, times, null) + pushed[:, :, None, None].to(x.dtype)

    wrap(model.text_encoder, "forward", text)
    bind(model, "initial_state", start)
    wrap(model.fm_transformers, "forward", moved)


def with_noise_start(
    subject: Subject, name: str, draw: Draw = normal, push: Push = conditional, /, **spec: Any
) -> Subject:
    """The tiny subject whose flow starts at what `draw` returns, with these fields of its spec replaced."""
    return remodel(subject, name, lambda model: _install(model, draw, push), initial_state="noise", **spec)
