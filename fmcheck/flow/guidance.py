"""Classifier-free guidance: how two velocities combine, and which combination a loop really used."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from fmcheck.errors import DeclarationError
from fmcheck.spec import FlowSpec

__all__ = ["Coefficients", "combine", "combine_formula", "effective_coefficients"]


def combine(
    v_cond: Float[Tensor, "B *rest"], v_uncond: Float[Tensor, "B *rest"], weight: float
) -> Float[Tensor, "B *rest"]:
    """`v = (1 + w) v_cond - w v_uncond` (classifier-free guidance, arXiv 2207.12598, eq. 6).

    Raises:
        DeclarationError: the velocities differ in shape.
    """
    _check_shapes(v_cond, v_uncond)
    return (1 + weight) * v_cond - weight * v_uncond


def combine_formula(
    v_cond: Float[Tensor, "B *rest"], v_uncond: Float[Tensor, "B *rest"], scale: float, spec: FlowSpec
) -> Float[Tensor, "B *rest"]:
    """The combined velocity as the code base writes it, in the same order of operations.

    `cond_plus`: `(1 + scale) v_cond - scale v_uncond`; `uncond_plus`: `v_uncond + scale (v_cond - v_uncond)`.
    Where the spec calls guidance off (`spec.guidance_weight(scale) == 0`) it is `v_cond` itself, not a copy.

    Raises:
        DeclarationError: the velocities differ in shape.
    """
    _check_shapes(v_cond, v_uncond)
    if spec.guidance_weight(scale) == 0:
        return v_cond
    if spec.guidance_formula == "cond_plus":
        return combine(v_cond, v_uncond, scale)
    return v_uncond + scale * (v_cond - v_uncond)


@dataclass(frozen=True)
class Coefficients:
    """`delta = cond * v_cond + uncond * v_uncond`, as well as it can be met.

    Attributes:
        cond, uncond: the coefficients; nan when the velocities do not determine them.
        residual: largest absolute element of `delta - cond * v_cond - uncond * v_uncond`.
        condition: the share of `v_uncond` that `v_cond` does not explain, `|u - proj_c u| / |u|`, in [0, 1]. An error
            of relative size `r` in the velocities moves the coefficients by about `r / condition`, so a small one
            means *not informative*. It is 0 when a column is zero or both are parallel, 1 without a `v_uncond`, and
            nan when an input is empty or not finite.
    """

    cond: float
    uncond: float
    residual: float
    condition: float

    @property
    def determined(self) -> bool:
        """Whether the velocities determine the coefficients at all."""
        return math.isfinite(self.cond) and math.isfinite(self.uncond)

    @property
    def dt(self) -> float:
        """The step `cond + uncond`: guidance moves weight between the velocities and leaves their sum."""
        return self.cond + self.uncond

    @property
    def weight(self) -> float:
        """The guidance weight `w = -uncond / dt`; nan when the step is 0."""
        return -self.uncond / self.dt if self.dt != 0 else math.nan


def effective_coefficients(
    delta: Float[Tensor, "*shape"], v_cond: Float[Tensor, "*shape"], v_uncond: Float[Tensor, "*shape"] | None = None
) -> Coefficients:
    """The least-squares `(a, b)` of `delta ~ a v_cond + b v_uncond` over all elements, in float64.

    Without `v_uncond`, `b` is 0. Never raises for the values in the tensors: what cannot be solved is nan,
    see `Coefficients`.

    Raises:
        DeclarationError: the tensors differ in shape.
    """
    columns = [v_cond] if v_uncond is None else [v_cond, v_uncond]
    for column in columns:
        _check_shapes(delta, column)
    (d, d_scale), (c, c_scale), *others = [_unit_scaled(tensor) for tensor in (delta, *columns)]
    u, u_scale = others[0] if others else (torch.zeros_like(c), 1.0)
    if not all(math.isfinite(scale) for scale in (d_scale, c_scale, u_scale)):
        return Coefficients(math.nan, math.nan, math.nan, math.nan)
    if c_scale == 0 or u_scale == 0:
        return Coefficients(math.nan, math.nan, math.nan, 0.0)
    b, condition = _second_coefficient(d, c, u) if others else (0.0, 1.0)
    a = _dot(c, d - b * u) / _dot(c, c)
    residual = float((d - a * c - b * u).abs().max()) * d_scale
    return Coefficients(a * (d_scale / c_scale), b * (d_scale / u_scale), residual, condition)


def _second_coefficient(d: Float[Tensor, "N"], c: Float[Tensor, "N"], u: Float[Tensor, "N"]) -> tuple[float, float]:
    """`b` of `d ~ a c + b u`, and the condition `|p| / |u|` of `p = u - proj_c u`; `(nan, 0)` for parallel columns.

    Orthogonalised (`b = <p, d> / <p, p>`, as in a QR factorisation), because the normal equations would square
    the condition. The projection is repeated: after one pass `p` is still tilted towards `c` when the columns
    are nearly parallel. A `p` of a few eps of `u` is rounding noise.
    """
    p = _reject(_reject(u, c), c)
    condition = math.sqrt(_dot(p, p) / _dot(u, u))
    if condition <= 8 * torch.finfo(torch.float64).eps:
        return math.nan, 0.0
    return _dot(p, d) / _dot(p, p), condition


def _unit_scaled(tensor: Float[Tensor, "*shape"]) -> tuple[Float[Tensor, "N"], float]:
    """The flattened float64 tensor over its largest magnitude, and that magnitude (nan when empty).

    Without the scaling, squares of float64 values would overflow or vanish.
    """
    flat = tensor.detach().reshape(-1).to(torch.float64)
    scale = float(flat.abs().max()) if flat.numel() else math.nan
    return (flat / scale if scale > 0 and math.isfinite(scale) else flat), scale


def _reject(u: Float[Tensor, "N"], c: Float[Tensor, "N"]) -> Float[Tensor, "N"]:
    """The part of `u` orthogonal to `c`."""
    return u - (_dot(c, u) / _dot(c, c)) * c


def _dot(left: Float[Tensor, "N"], right: Float[Tensor, "N"]) -> float:
    """Inner product as a number."""
    return float(left @ right)


def _check_shapes(first: Tensor, second: Tensor) -> None:
    """Raise instead of broadcasting: a `[1, C, h, w]` velocity would silently guide every row alike."""
    if first.shape != second.shape:
        raise DeclarationError(
            f"guidance: expected tensors of one shape; found {tuple(first.shape)} and {tuple(second.shape)}"
        )
