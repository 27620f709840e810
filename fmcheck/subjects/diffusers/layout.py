"""Latents of a pipeline: channels, factor, packing, frames, scale and shift."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fmcheck.flow import unpack

__all__ = ["latent_fields", "scale_and_shift"]


def latent_fields(pipe: Any, state: Tensor, decoded: Tensor, height: int) -> dict[str, Any]:
    """FlowSpec's fields about latents, from the last state and what the decoder was given for it."""
    channels, latent_height = decoded.shape[1], decoded.shape[-2]
    scale, shift = scale_and_shift(pipe.vae)
    fields: dict[str, Any] = {
        "latent_channels": channels,
        "downsampling": height // latent_height,
        "latent_scale": scale,
        "latent_shift": shift,
        "latent_frames": decoded.shape[2] if decoded.dim() == 5 else None,
    }
    if state.dim() == 3:
        patch = round(math.sqrt(decoded[0, 0].numel() / state.shape[1]))
        fields |= {"token_patch": patch, "token_order": _order(state, decoded, patch)}
    return fields


def scale_and_shift(vae: Any) -> tuple[Any, Any]:
    """`latent_scale` and `latent_shift`: numbers, or tuples with one number a channel."""
    config: Mapping[str, Any] = vae.config
    factor = float(config.get("scaling_factor") or 1.0)
    mean, std = _list(vae, "latents_mean"), _list(vae, "latents_std")
    if mean is None or std is None:
        return factor, float(config.get("shift_factor") or 0.0)
    if all(m == 0 for m in mean) and all(s == 1 for s in std):
        return factor, 0.0
    return tuple(factor / s for s in std), tuple(mean)


def _list(vae: Any, name: str) -> list[float] | None:
    # Some keep them as buffers. Attributes that only repeat the configuration are deprecated.
    value = vae.config[name] if name in vae.config else getattr(vae, name, None)
    return None if value is None else [float(v) for v in torch.as_tensor(value).reshape(-1)]


def _order(state: Tensor, decoded: Tensor, patch: int) -> str:
    """The order under which the decoder's input is an affine function of the state, channel by channel."""
    left = {order: _unexplained(unpack(state, decoded.shape, patch, order), decoded) for order in _ORDERS}
    return min(_ORDERS, key=lambda order: left[order])


_ORDERS = ("channels_first", "channels_last")


def _unexplained(x: Tensor, y: Tensor) -> float:
    """Residual of the best affine map a channel."""
    x, y = (t.transpose(0, 1).flatten(1).double() for t in (x, y))
    x, y = x - x.mean(1, keepdim=True), y - y.mean(1, keepdim=True)
    slope = (x * y).sum(1, keepdim=True) / (x * x).sum(1, keepdim=True).clamp_min(1e-30)
    return float((y - slope * x).square().sum())
