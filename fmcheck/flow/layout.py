"""Layouts of one and the same latent: packed tokens, and factors that differ from channel to channel."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from fmcheck.errors import DeclarationError
from fmcheck.spec import FlowSpec, PerChannel

__all__ = ["channelwise", "pack", "packable", "to_decoder", "to_state", "unpack"]


def pack(latent: Float[Tensor, "B C *frames h w"], spec: FlowSpec) -> Float[Tensor, "B ..."]:
    """The latent as the state of the loop: itself, or the declared tokens `[B, frames (h/p) (w/p), C p p]`.

    Tokens run over frames, rows and columns; a token holds `(C, p, p)` or `(p, p, C)`, as `spec.token_order` says.

    Raises:
        DeclarationError: the latent has not four or five axes, or `p` does not divide its height and width.
    """
    p = spec.token_patch
    if p is None:
        return latent
    if not packable(latent, spec):
        raise DeclarationError(
            f"pack: expected a latent [B, C, h, w] with h and w divisible by {p}; found {tuple(latent.shape)}"
        )
    frames = latent.unsqueeze(2) if latent.dim() == 4 else latent
    batch, channels, count, h, w = frames.shape
    cells = frames.reshape(batch, channels, count, h // p, p, w // p, p)
    order = (0, 2, 3, 5, 1, 4, 6) if spec.token_order == "channels_first" else (0, 2, 3, 5, 4, 6, 1)
    return cells.permute(order).reshape(batch, count * (h // p) * (w // p), channels * p * p)


def unpack(tokens: Float[Tensor, "B n d"], shape: Sequence[int], patch: int, order: str) -> Tensor:
    """Tokens as a latent of `shape`, `[B, C, (frames) h, w]`: the inverse of :func:`pack`, for sizes that fill it.

    `order` is a `token_order`.
    """
    rows, channels, (height, width) = len(tokens), shape[1], shape[-2:]
    grid = tokens.reshape(rows, -1, height // patch, width // patch, tokens.shape[-1])
    if order == "channels_first":
        parts = grid.reshape(*grid.shape[:4], channels, patch, patch).permute(0, 4, 1, 2, 5, 3, 6)
    else:
        parts = grid.reshape(*grid.shape[:4], patch, patch, channels).permute(0, 6, 1, 2, 4, 3, 5)
    return parts.reshape(tuple(shape))


def packable(latent: Tensor, spec: FlowSpec) -> bool:
    """Whether :func:`pack` takes the latent: always without tokens, else where they fill its height and width."""
    p = spec.token_patch
    return p is None or (latent.dim() in (4, 5) and not any(side % p for side in latent.shape[-2:]))


def channelwise(value: PerChannel, like: Float[Tensor, "N C ..."]) -> Tensor:
    """One number a channel, or one for all, shaped to multiply `like`; in its dtype and on its device."""
    if not isinstance(value, tuple):
        return torch.tensor(float(value), dtype=like.dtype, device=like.device)
    return torch.tensor(value, dtype=like.dtype, device=like.device).reshape(-1, *(1,) * (like.dim() - 2))


def to_decoder(state: Float[Tensor, "N C ..."], spec: FlowSpec) -> Float[Tensor, "N C ..."]:
    """`state / latent_scale + latent_shift`: a latent in the decoder's units."""
    return state / channelwise(spec.latent_scale, state) + channelwise(spec.latent_shift, state)


def to_state(latent: Float[Tensor, "N C ..."], spec: FlowSpec) -> Float[Tensor, "N C ..."]:
    """`(latent - latent_shift) * latent_scale`: the inverse of :func:`to_decoder`."""
    return (latent - channelwise(spec.latent_shift, latent)) * channelwise(spec.latent_scale, latent)
