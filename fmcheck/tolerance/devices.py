"""Bounds on what the same run may give on another device, in another precision, or with other versions of libraries."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from fmcheck.record.trace import Trace

__all__ = ["TF32_EPS", "device_bound", "event_bound", "kernel_eps", "seen_eps"]

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


def event_bound(drift: float, before: float, eps: float) -> float:
    """Bound on `rms(a - b) / rms(a)` of one recorded tensor of two runs that compute the same in other ways.

    Two things that are no fault of the tensor's own call or update may part the runs:

    * what all calls before it may have added up to, `drift`, which is :func:`device_bound`;
    * what was measured in front of it, `before`, the largest difference of the earlier tensors. With the house's
      allowance for condition numbers, up to `1 / sqrt(eps)`, a pass or an update makes at most
      `(before + eps) / sqrt(eps)` of it and of its own rounding. A flow that amplifies small differences (strong
      guidance does, exponentially in its weight) leaves the first bound and keeps within this one in every event.

    The larger of them, and never more than 1, from where on unrelated tensors could not be told apart.

    Measured on the tiny model and its correct variations (one thread of an AVX-512 CPU), the largest share of it that a
    run uses: 0.10 to 0.12 under bfloat16 autocast, 0.07 to 0.13 with bfloat16 weights, 0.002 to 0.003 for other kernels
    in float32 (attention, memory layout, parts of a batch, inductor).
    """
    return min(1.0, max(drift, (before + eps) / math.sqrt(eps)))


def seen_eps(dtype: torch.dtype, trace: Trace) -> float:
    """The eps of the coarsest of a network's dtype and the dtypes in which its run shows states and velocities.

    A float64 network may sit in a float32 pipeline, and a state may be coarser than the network.
    """
    tensors = [value for call in trace.of("velocity") for value in (call.inputs.get("x"), call.output)]
    return max([torch.finfo(dtype).eps, *(torch.finfo(found).eps for found in _floating(tensors))])


def _floating(tensors: Iterable[object]) -> set[torch.dtype]:
    return {tensor.dtype for tensor in tensors if isinstance(tensor, Tensor) and tensor.is_floating_point()}
