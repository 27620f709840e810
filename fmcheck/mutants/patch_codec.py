"""An autoencoder without training that brings smooth pictures back: a few cosines of every 32 x 32 patch."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fmcheck.mutants.remodel import remodel
from fmcheck.mutants.surgery import bind
from fmcheck.subject import Subject
from fmcheck.tiny import TinyFlowModel

__all__ = ["patches_of", "pictures_of", "with_patch_codec"]

_SIDE, _CHANNELS, _COLOURS = 32, 32, 3
# Two cosines along the sides whose frequencies add up to 3 at most: ten a colour, and two channels that stay empty.
_FREQUENCIES = [(i, j) for i in range(4) for j in range(4 - i)]
# Pictures of the states that an untrained flow ends at are then grey enough not to be saturated.
_GAIN = 0.2
_WITHIN = 0.999


def _basis(device: torch.device) -> Tensor:
    """Orthonormal in the mean over a patch, `[10, 32, 32]`."""
    place = (torch.arange(_SIDE, device=device) + 0.5) / _SIDE
    waves = [torch.cos(math.pi * n * place) * (2**0.5 if n else 1.0) for n in range(4)]
    return torch.stack([waves[i].outer(waves[j]) for i, j in _FREQUENCIES])


def patches_of(images: Tensor) -> Tensor:
    """Latents `[B, 32, H/32, W/32]`, in the decoder's units, of pictures `[B, 3, H, W]` in [-1, 1]."""
    rows, _, height, width = images.shape
    bent = torch.atanh(_WITHIN * images.float()) / _GAIN
    cells = bent.reshape(rows, _COLOURS, height // _SIDE, _SIDE, width // _SIDE, _SIDE)
    found = torch.einsum("bchpwq,kpq->bckhw", cells, _basis(images.device) / _SIDE**2).flatten(1, 2)
    return torch.cat([found, found.new_zeros(rows, _CHANNELS - found.shape[1], *found.shape[2:])], dim=1)


def pictures_of(latents: Tensor) -> Tensor:
    """Pictures of latents in the decoder's units; `patches_of` is its inverse for what ten cosines can show."""
    waves = len(_FREQUENCIES)
    kept = latents[:, : _COLOURS * waves].reshape(len(latents), _COLOURS, waves, *latents.shape[2:])
    cells = torch.einsum("bckhw,kpq->bchpwq", kept, _basis(latents.device))
    return torch.tanh(_GAIN * cells.flatten(4, 5).flatten(2, 3)) / _WITHIN


def _install(model: TinyFlowModel) -> None:
    codec = model.autoencoder
    bind(codec, "encode_moments", lambda found, image: (patches_of(image) - found.shift) * found.scale)
    bind(codec, "decode", lambda _, latents: pictures_of(latents).clamp(-1, 1))


def with_patch_codec(
    subject: Subject, name: str, change: Callable[[TinyFlowModel], object] = lambda _: None, /, **spec: Any
) -> Subject:
    """The tiny subject with this autoencoder, then changed, with these fields of its spec replaced."""

    def both(model: TinyFlowModel) -> None:
        _install(model)
        change(model)

    return remodel(subject, name, both, **spec)
