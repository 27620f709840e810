"""Classifier-free guidance: how two velocities combine, and which combination a loop really used."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from fmcheck.errors import DeclarationError
from fmcheck.spec import FlowSpec

__all__ = ["Coefficients", "combine", "combine_formula", "effective_coefficients", "rescaling"]


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


def rescaling(
    cond: Float[Tensor, "B *rest"], uncond: Float[Tensor, "B *rest"], weight: float, spec: FlowSpec
) -> Float[Tensor, "..."]:
    """The factor by which a code base scales its combined prediction `p = (1 + w) c - w u`, shaped to multiply it.

    `guidance_rescale`: `phi std(c) / std(p) + 1 - phi`, a row at a time (arXiv 2305.08891, eq. 15 and 16);
    `guidance_norm`: `|c| / |p|`, over a row or the last axis. 1 where `p` is zero. In the dtype of `cond`.

    Raises:
        DeclarationError: the predictions differ in shape.
    """
    combined = combine(cond, uncond, weight)
    factor = cond.new_ones(len(cond), *(1,) * (cond.dim() - 1))
    axes = tuple(range(1, cond.dim()))
    if spec.guidance_rescale:
        share = cond.std(dim=axes, keepdim=True) / combined.std(dim=axes, keepdim=True)
        factor = factor * (spec.guidance_rescale * share + 1 - spec.guidance_rescale)
    if spec.guidance_norm != "none":
        over = axes if spec.guidance_norm == "row" else (-1,)
        norms = [torch.linalg.vector_norm(part, dim=over, keepdim=True) for part in (cond, combined)]
        factor = factor * (norms[0] / norms[1])
    return factor.where(factor.isfinite(), torch.ones_like(factor))


@dataclass(frozen=True)
class Coefficients:
    """`delta = cond * v_cond + uncond * v_uncond`, as well as it can be met.

    Attributes:
        cond, uncond: the coefficients; nan when the velocities do not determine them.
        condition: the share of `v_uncond` that `v_cond` does not explain, `|u - proj_c u| / |u|`, in [0, 1]. An error
            of relative size `r` in the velocities moves the coefficients by about `r / condition`, so a small one
            means *not informative*. It is 0 when a column is zero or both are parallel, 1 without a `v_uncond`, and
            nan when an input is empty or not finite.
    """

    cond: float
    uncond: float
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
    d, c, *others = [tensor.detach().reshape(-1).to(torch.float64) for tensor in (delta, *columns)]
    found = _solve(d, c, others[0] if others else None)
    if found is not None:
        return found
    # Squares overflowed or vanished, or something is zero or not finite: once more with all sizes at 1.
    (d, d_scale), (c, c_scale), *rest = [_unit_scaled(flat) for flat in (d, c, *others)]
    u, u_scale = rest[0] if rest else (None, 1.0)
    if not all(math.isfinite(scale) for scale in (d_scale, c_scale, u_scale)):
        return Coefficients(math.nan, math.nan, math.nan)
    found = _solve(d, c, u) if c_scale and u_scale else None
    if found is None:
        return Coefficients(math.nan, math.nan, 0.0)
    return Coefficients(found.cond * (d_scale / c_scale), found.uncond * (d_scale / u_scale), found.condition)


def _solve(d: Float[Tensor, "N"], c: Float[Tensor, "N"], u: Float[Tensor, "N"] | None) -> Coefficients | None:
    """Least squares of `d ~ a c + b u`; None where the columns are parallel or their squares cannot be represented.

    Orthogonalised (`b = <p, d> / <p, p>`, as in a QR factorisation), because the normal equations would square
    the condition `|p| / |u|` of `p = u - proj_c u`. The projection is repeated: after one pass `p` is still tilted
    towards `c` when the columns are nearly parallel. A `p` of a few eps of `u` is rounding noise.
    """
    cc, cd = _dot(c, c), _dot(c, d)
    if not (_SMALL < cc < _LARGE and math.isfinite(cd)):
        return None
    if u is None:
        return Coefficients(cd / cc, 0.0, 1.0)
    cu, uu = _dot(c, u), _dot(u, u)
    if not (_SMALL < uu < _LARGE and math.isfinite(cu)):
        return None
    p = u - (cu / cc) * c
    p = p - (_dot(c, p) / cc) * c
    pp, pd = _dot(p, p), _dot(p, d)
    condition = math.sqrt(pp / uu)
    if condition <= 8 * torch.finfo(torch.float64).eps or not math.isfinite(pd):
        return None
    b = pd / pp
    return Coefficients((cd - b * cu) / cc, b, condition)


# Squares between these are far from the ends of float64, and so are those of differences of a few eps.
_SMALL, _LARGE = 2.0**-600, 2.0**600


def _unit_scaled(flat: Float[Tensor, "N"]) -> tuple[Float[Tensor, "N"], float]:
    """The tensor over its largest magnitude, and that magnitude (nan when empty, not finite when an element is not)."""
    size = float(torch.linalg.vector_norm(flat, math.inf)) if flat.numel() else math.nan
    return (flat / size if size > 0 and math.isfinite(size) else flat), size


def _dot(left: Float[Tensor, "N"], right: Float[Tensor, "N"]) -> float:
    """Inner product as a number."""
    return float(left @ right)


def _check_shapes(first: Tensor, second: Tensor) -> None:
    """Raise instead of broadcasting: a `[1, C, h, w]` velocity would silently guide every row alike."""
    if first.shape != second.shape:
        raise DeclarationError(
            f"guidance: expected tensors of one shape; found {tuple(first.shape)} and {tuple(second.shape)}"
        )
