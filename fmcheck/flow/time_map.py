"""Flow time and what the network is told about it: `argument = offset + slope * t`."""

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from fmcheck.spec import FlowSpec

__all__ = ["from_argument", "to_argument"]


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
