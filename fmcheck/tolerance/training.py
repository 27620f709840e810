"""Bounds on what a training loss is made of: states on the path, targets, and ends solved from them."""

import torch
from torch import Tensor

from fmcheck.tolerance.units import gamma

__all__ = ["implied_bound", "path_bound", "target_bound"]


def path_bound(x0: Tensor, x1: Tensor, dtype: torch.dtype) -> Tensor:
    """Elementwise bound on the error of a training state `x_t = (1 - (1 - s) t) x0 + t x1` computed in `dtype`.

    As it stands: `1 - s`, its product with `t`, the difference from 1 (absolute, of numbers up to 1) and the product
    with `x0` are four roundings of `|x0|`; `t x1` is one of `|x1|`, the sum one of both. As `x0 + t (x1 - (1 - s) x0)`
    it is five of `|x0|` and three of `|x1|`. Add one of both when `t` itself is rounded to the dtype, one when the
    state is handed on in it, and two of `|x1|` where the latent scale and shift are applied outside the encoder.
    """
    return gamma(7, dtype) * (x0.abs() + x1.abs())


def target_bound(x0: Tensor, x1: Tensor, output: Tensor, dtype: torch.dtype) -> Tensor:
    """Elementwise bound on the error of `output - (x1 - (1 - s) x0)` computed in `dtype`.

    Scale and shift of `x1`, or `1 - s` and its product with `x0`: two roundings; the difference one; the cast of
    target and output to a common dtype one each. The last difference keeps its sign whatever it is rounded to.
    """
    return gamma(4, dtype) * (x0.abs() + x1.abs() + output.abs())


def implied_bound(state_error: Tensor, time_error: float, velocity: Tensor, remaining: Tensor) -> Tensor:
    """Elementwise bound on `x0 = (x_t - t x1) / a` with `a = 1 - (1 - s) t`, from the errors of `x_t` and `t`.

    `d x0 / d x_t = 1 / a` and `d x0 / d t = -v / a`, with `v = x1 - (1 - s) x0`.
    """
    bound: Tensor = (state_error + time_error * velocity.abs()) / remaining.abs()
    return bound
