"""Bounds on what the same run may give on another device, or with other versions of the libraries."""

import math

import torch

__all__ = ["TF32_EPS", "device_bound", "kernel_eps"]

# TensorFloat-32 keeps 10 of float32's 23 bits behind the point.
TF32_EPS = 2.0**-10


def kernel_eps(dtype: torch.dtype, *, matmul: str = "highest", convolutions_in_tf32: bool = False) -> float:
    """The eps that kernels of a dtype really compute with.

    Args:
        matmul: `torch.get_float32_matmul_precision()`: `high` lets float32 products be taken in TF32, `medium` in
            bfloat16.
        convolutions_in_tf32: as CUDA does by default.
    """
    eps = torch.finfo(dtype).eps
    if dtype != torch.float32:
        return eps
    products = {"high": TF32_EPS, "medium": torch.finfo(torch.bfloat16).eps}.get(matmul, eps)
    return max(products, TF32_EPS if convolutions_in_tf32 else eps)


def device_bound(eps: float, *, passes: int, weight: float = 0.0, guided: bool = False, calls: int = 0) -> float:
    """Bound on `rms(a - b) / rms(a)` of a tensor that two correct runs of one case computed on different devices.

    Kernels of two devices round differently, nothing else differs. With `d = sqrt(eps)` for one pass through a network
    (the house's allowance for kernels, condition numbers up to `1 / sqrt(eps)`: see `half_digits`):

    * each of the `passes` (text encoder, velocity network, decoder) in a row before the tensor adds `d`;
    * a `guided` state has collected the velocities `(1 + w) c - w u`, which differ by `d (|1 + w| + |w|)` of the size
      of a velocity, since errors of both halves may add up; the step sizes sum to 1, so it collects that once and not
      once a step; velocity and state are of one size, since the flow leads from one normalised distribution to another;
    * it was rounded once an update on both devices: `calls * eps`.

    Never more than 1: unrelated tensors of one size differ by `sqrt(2)`, and are to be told apart whatever the dtype.

    Args:
        eps: of the coarsest arithmetic in the way, from :func:`kernel_eps`.
        weight: `w` of the guidance.
        calls: of the velocity network.
    """
    collected = abs(1 + weight) + abs(weight) if guided else 0.0
    return min(1.0, (passes + collected) * math.sqrt(eps) + calls * eps * guided)
