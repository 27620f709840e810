"""Maps of flow time: what the network is told about it, `argument = offset + slope * t`, and the shift of a grid."""

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from fmcheck.errors import DeclarationError
from fmcheck.spec import FlowSpec

__all__ = ["from_argument", "shift_sigma", "to_argument"]


def to_argument(t: Float[Tensor, "*shape"], spec: FlowSpec) -> Float[Tensor, "*shape"]:
    """`offset + slope * t`, for instance the log-SNR `4 - 8 t`; same shape, dtype and device as `t`."""
    offset, slope = spec.time_map
    return offset + slope * t


def from_argument(value: Shaped[Tensor, "*shape"], spec: FlowSpec) -> Float[Tensor, "*shape"]:
    """`t = (value - offset) / slope`, in float64 whatever the dtype of `value` (integer timesteps included).

    Computed in the dtype of `value`, the inverse would round a second time and hide what the network really got.
    """
    offset, slope = spec.time_map
    return (value.to(torch.float64) - offset) / slope


def shift_sigma(sigma: Float[Tensor, "*shape"], shift: float) -> Float[Tensor, "*shape"]:
    """`shift sigma / (1 + (shift - 1) sigma)`: the shift of the noise level `sigma = 1 - t` (arXiv 2403.03206, eq. 23).

    Shifts compose by multiplication: `a` after `b` is `a b`, `1 / a` takes `a` back. They are translations by
    `log(shift)` of the log-odds `log(sigma / (1 - sigma))`. Keeps shape, dtype and device.

    Raises:
        DeclarationError: the shift is not above 0.
    """
    if not shift > 0:
        raise DeclarationError(f"shift: expected a number above 0; found {shift!r}")
    # As a sum of two positive terms, since `1 + (shift - 1) sigma` cancels for a small shift.
    return shift * sigma / ((1 - sigma) + shift * sigma)
