"""Validation of arguments: each function names the argument, what was expected and what was found."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def describe(value: object) -> str:
    """Short form of a value for an error message: dtype and shape of a tensor, never its contents."""
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
    return f"{value!r} ({type(value).__name__})"


def positive_int(name: str, value: object) -> int:
    """Return ``value`` if it is an int of at least 1; ``ValueError`` otherwise (also for bool and float)."""
    # bool is a subclass of int, and True would quietly mean "one step".
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name}: expected a positive int, found {describe(value)}")
    return value


def finite_number(name: str, value: object) -> float:
    """Return ``value`` as a float if it is a finite int or float; ``ValueError`` otherwise."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{name}: expected a finite number, found {describe(value)}")
    return float(value)


def float_tensor(name: str, value: object, shape: Sequence[int | None]) -> None:
    """Require a floating tensor of ``shape``, where None stands for any size; ``ValueError`` otherwise."""
    expected = "[" + ", ".join("*" if size is None else str(size) for size in shape) + "]"
    if not isinstance(value, Tensor) or not value.is_floating_point():
        raise ValueError(f"{name}: expected a floating tensor {expected}, found {describe(value)}")
    agrees = len(shape) == value.dim() and all(
        want is None or want == found for want, found in zip(shape, value.shape, strict=True)
    )
    if not agrees:
        raise ValueError(f"{name}: expected shape {expected}, found {describe(value)}")


def token_tensors(input_ids: object, attention_mask: object) -> None:
    """Require ids int64 ``[B, L]``, B and L at least 1, with a bool or int64 mask of the same shape.

    Only shapes and dtypes are looked at, so that the check costs no synchronisation with a device.
    """
    if not isinstance(input_ids, Tensor) or input_ids.dtype != torch.int64 or input_ids.dim() != 2:
        raise ValueError(f"input_ids: expected int64[B, L], found {describe(input_ids)}")
    if input_ids.numel() == 0:
        raise ValueError(f"input_ids: expected at least one row and one token, found {describe(input_ids)}")
    if not isinstance(attention_mask, Tensor) or attention_mask.dtype not in (torch.bool, torch.int64):
        raise ValueError(f"attention_mask: expected bool or int64 [B, L], found {describe(attention_mask)}")
    if attention_mask.shape != input_ids.shape:
        raise ValueError(
            f"attention_mask: expected the shape of input_ids {list(input_ids.shape)}, found {describe(attention_mask)}"
        )


def random_generator(name: str, value: object) -> torch.Generator:
    """Return ``value`` if it is a ``torch.Generator``; ``ValueError`` otherwise (None included)."""
    if not isinstance(value, torch.Generator):
        raise ValueError(f"{name}: expected a torch.Generator, found {describe(value)}")
    return value
