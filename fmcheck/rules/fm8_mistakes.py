"""Diagnoses of parity: known ways in which a tensor comes out as another one when the same is computed otherwise."""

import torch
from torch import Tensor

from fmcheck.tensors import all_finite, describe
from fmcheck.tolerance import EXPLAINED

__all__ = ["mistake"]


def mistake(first: Tensor, second: Tensor, allowed: float) -> str | None:
    """The known mistake that makes the second tensor of the first one; None when there is none such.

    Args:
        allowed: the share of its size by which a correct tensor may differ.
    """
    if first.shape != second.shape:
        return f"it is {describe(second)}, {describe(first)} in the reference"
    if not all_finite(second):
        return "it holds NaN or infinity"
    a, b = first.double(), second.double()
    if not b.any():
        return "it is zero"
    # Two tensors that hardly differ are equal up to a scale, and hold the same values in any order.
    far = _size(b - a) > allowed * _size(a)
    known = _some_rows(a, b, allowed) or _scaled(a, b, allowed) or _in_another_order(a, b) if far else None
    return known or _rounded(second, a)


def _size(tensor: Tensor) -> float:
    return float(torch.linalg.vector_norm(tensor))


def _some_rows(a: Tensor, b: Tensor, allowed: float) -> str | None:
    """Rows that differ while all others agree."""
    if a.dim() < 2 or len(a) < 2:
        return None
    gaps, sizes = (b - a).flatten(1).norm(dim=1), a.flatten(1).norm(dim=1)
    wrong = (gaps > allowed * sizes).nonzero().flatten().tolist()
    if not 0 < len(wrong) < len(a):
        return None
    shown = ", ".join(map(str, wrong[:6])) + (", …" if len(wrong) > 6 else "")
    return f"only row{'s' if len(wrong) > 1 else ''} {shown} of {len(a)} differ{'' if len(wrong) > 1 else 's'}"


def _scaled(a: Tensor, b: Tensor, allowed: float) -> str | None:
    """The same tensor times a number."""
    whole = float((a * a).sum())
    factor = float((a * b).sum()) / whole if whole else 0.0
    if abs(factor - 1) <= allowed or not factor or _size(b - factor * a) > allowed * _size(b):
        return None
    return f"it is {factor:.4g} times that of the reference: a scale is forgotten or applied twice"


def _in_another_order(a: Tensor, b: Tensor) -> str | None:
    """The same numbers, which stand in other places. Two tensors of one distribution are alike in order of size too."""
    if _size(b.flatten().sort().values - a.flatten().sort().values) > EXPLAINED * _size(b - a):
        return None
    return "it holds the same values in another order: memory order is taken for logical order, or axes are swapped"


def _rounded(second: Tensor, a: Tensor) -> str | None:
    """Values of a longer dtype that a shorter one could hold, where the reference has digits."""
    if second.dtype not in (torch.float32, torch.float64):
        return None
    for dtype in (torch.bfloat16, torch.float16):
        short, before = second.to(dtype).to(second.dtype), a.to(dtype).double()
        if torch.equal(second, short) and not torch.equal(a, before):
            return f"its values are rounded to {str(dtype).removeprefix('torch.')}"
    return None
