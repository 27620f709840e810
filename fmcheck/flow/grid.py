"""The time grid: edges of the steps, times at which the network is evaluated, and how exact both can be."""

import math
from collections.abc import Callable
from dataclasses import replace
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal, localcontext
from fractions import Fraction
from functools import lru_cache, partial
from statistics import NormalDist

import torch
from jaxtyping import Float
from torch import Tensor

from fmcheck.errors import DeclarationError, NotInformative
from fmcheck.spec import FlowSpec

__all__ = ["check_edges", "edge_error_bound", "evaluation_times", "time_edges"]


def time_edges(
    num_steps: int, spec: FlowSpec, *, dtype: torch.dtype = torch.float64, device: torch.device | str = "cpu"
) -> Float[Tensor, "{num_steps}+1"]:
    """Ascending edges of the steps, in flow time from 0 (source) to 1 (data).

    With `q = linspace(clamp, 1 - clamp, K + 1)`, elementwise:

    - `logit_normal`: `t = sigmoid(mean + std * Phi^-1(q))`, the quantiles of the training times of
      SD3 (arXiv 2403.03206, section 3.1); without a clamp the ends are exactly 0 and 1;
    - `uniform`: `t = q`;
    - `shifted`: `t = 1 - s`, `s = shift * (1 - q) / (1 + (shift - 1) * (1 - q))` (same paper, eq. 23);
    - `declared`: `spec.grid_edges` as they are.

    With a `grid_last_sigma` the levels `1 - q` are `linspace(1, last, K)` and 0; with a `grid_terminal` the times of
    the evaluations are multiplied so that the last of them is `1 - terminal`, whatever `K` above 1.

    The edges are computed in rational and decimal numbers and rounded once to float64, then to `dtype`, so that the
    reference depends neither on the device nor on its mathematical library.

    Args:
        num_steps: `K`, at least 1.
        spec: its `grid*` fields are read.
        dtype: floating dtype of the result.
        device: where the result lives.

    Raises:
        DeclarationError: `num_steps` is not a positive integer, or `dtype` is not a floating dtype.
        NotInformative: the declared edges are those of another number of steps, or depend on the size.
    """
    if not dtype.is_floating_point:
        raise DeclarationError(f"time_edges(dtype): expected a floating dtype; found {dtype}")
    edge: Callable[[Fraction, Fraction], float]
    if spec.grid == "logit_normal":
        edge = partial(_logit_normal_edge, spec.grid_mean, spec.grid_std)
    elif spec.grid == "uniform":
        edge = _uniform_edge
    elif spec.grid == "shifted":
        edge = partial(_shifted_edge, Fraction(spec.grid_shift))
    else:
        return torch.tensor(_declared(num_steps, spec), dtype=torch.float64).to(device=device, dtype=dtype)
    if spec.grid_shift_by_tokens is not None:
        raise NotInformative("the grid depends on the size of the image, and no size is given (see FlowSpec.at)")
    edges = [edge(q, 1 - q) for q in _fractions(num_steps, spec)]
    if spec.grid_terminal is not None and num_steps > 1:
        stretch = (1 - Fraction(spec.grid_terminal)) / Fraction(edges[-2])
        edges = [*(float(Fraction(t) * stretch) for t in edges[:-1]), edges[-1]]
    return torch.tensor(edges, dtype=torch.float64).to(device=device, dtype=dtype)


def _declared(num_steps: int, spec: FlowSpec) -> tuple[float, ...]:
    edges = spec.grid_edges or ()
    if len(edges) != num_steps + 1:
        raise NotInformative(f"the subject declares {max(len(edges) - 1, 0)} steps, and {num_steps} are asked about")
    return edges


def _uniform_edge(q: Fraction, rest: Fraction) -> float:
    return float(q)


def _shifted_edge(shift: Fraction, q: Fraction, rest: Fraction) -> float:
    return float(q / (q + shift * rest))


def _logit_normal_edge(mean: float, std: float, q: Fraction, rest: Fraction) -> float:
    """`sigmoid(mean + std Phi^-1(q))`, rounded once.

    In decimal digits: a float64 `y` near -5 is a multiple of 4 units of roundoff, by which its sigmoid would be off.
    """
    if not q or not rest:
        return float(q)
    with localcontext(_ARITHMETIC):
        z = _quantile(q) if q < rest else -_quantile(rest)
        y = Decimal(mean) + Decimal(std) * z
        return float(1 / (1 + (-y).exp()))


@lru_cache(maxsize=2**14)
def _quantile(tail: Fraction) -> Decimal:
    """`Phi^-1(tail)` of a tail up to 1/2: the float64 quantile, and one Newton step, which doubles its 16 digits.

    Kept, since grids of one number of steps differ in what comes after it.

    With `x = -z / sqrt(2)` the tail is `(1 - erf(x)) / 2`, by the series of positive terms
    `erf(x) = 2 / sqrt(pi) exp(-x^2) sum_n 2^n x^(2n+1) / (2n+1)!!` (Abramowitz and Stegun, 7.1.6).
    """
    with localcontext(_ARITHMETIC):
        z = Decimal(NormalDist().inv_cdf(float(tail)))
        if tail <= _SMALLEST_TAIL:
            return z
        x = -z / Decimal(2).sqrt()
        term = total = x
        n = 0
        while term > total * _NEGLIGIBLE:
            n += 1
            term *= 2 * x * x / (2 * n + 1)
            total += term
        bell = (-x * x).exp()
        beyond = (1 - 2 / _PI.sqrt() * bell * total) / 2
        return z + (Decimal(tail.numerator) / tail.denominator - beyond) * (2 * _PI).sqrt() / bell


_DIGITS = 60
_NEGLIGIBLE = Decimal(10) ** -_DIGITS
# The difference from 1 leaves 30 digits down to here, which is enough; a smaller tail keeps its float64 quantile.
_SMALLEST_TAIL = Fraction(1, 10**30)
# Of our own, whatever the caller has set; it overflows and underflows as floats do.
_ARITHMETIC = Context(prec=_DIGITS, Emin=MIN_EMIN, Emax=MAX_EMAX, traps=[])
_PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494459230781640628621")


def evaluation_times(edges: Float[Tensor, "E"], spec: FlowSpec) -> Float[Tensor, "E-1 S"]:
    """Flow times at which the network is evaluated: one row a step, one column a stage, in the order of the calls.

    `euler`: `((a + b) / 2,)` or `(a,)`, as `spec.evaluation_point` says; explicit `midpoint`: `(a, (a + b) / 2)`;
    `heun`: `(a, b)`, for a step from edge `a` to edge `b`; other methods as `euler`. Keeps dtype and device of `edges`.

    Raises:
        DeclarationError: `edges` is not a floating 1-D tensor of at least two entries.
    """
    check_edges(edges)
    start, end = edges[:-1], edges[1:]
    middle = (start + end) / 2
    if spec.stages == 1:
        return (middle if spec.evaluation_point == "midpoint" else start)[:, None]
    return torch.stack((start, middle if spec.solver == "midpoint" else end), dim=1)


def check_edges(edges: Float[Tensor, "E"]) -> None:
    """Raise `DeclarationError` unless `edges` is a floating 1-D tensor of at least two entries."""
    if edges.dim() != 1 or edges.numel() < 2 or not edges.is_floating_point():
        raise DeclarationError(
            f"edges: expected a floating 1-D tensor of at least two entries; found {edges.dtype} {tuple(edges.shape)}"
        )


def edge_error_bound(num_steps: int, spec: FlowSpec, dtype: torch.dtype) -> Float[Tensor, "{num_steps}+1"]:
    """Elementwise bound on `|edge computed the usual way in dtype - exact edge|`, as a float64 CPU tensor.

    The usual way is the formula of `time_edges` evaluated operation by operation in `dtype`, or in a wider one and
    cast down at the end. `u = eps / 2` is the unit roundoff; terms of order `u^2` are dropped, and the constants
    are rounded up to cover them. The derivations stand at `_logit_normal_bound` and `_shifted_bound`; a uniform edge is
    good to `5 u` (index, end, step, product, sum), also when computed as `1 - sigma`; so is a declared one, for which
    those five are what its makers may have lost. A stretched grid multiplies by `(1 - terminal) / t`, with the errors
    of both times and three roundings.

    The bound is about the exact edge. To compare with `time_edges` in float64, add the bound of float64.

    Raises:
        DeclarationError: `num_steps` is not a positive integer, or `dtype` is not a floating dtype.
    """
    if not dtype.is_floating_point:
        raise DeclarationError(f"edge_error_bound(dtype): expected a floating dtype; found {dtype}")
    unit = torch.finfo(dtype).eps / 2
    if spec.grid == "declared":
        return torch.full((num_steps + 1,), 5 * unit, dtype=torch.float64)
    q = torch.tensor([float(fraction) for fraction in _fractions(num_steps, spec)], dtype=torch.float64)
    if spec.grid == "logit_normal":
        bound = _logit_normal_bound(q, spec, unit)
    elif spec.grid == "uniform":
        bound = torch.full_like(q, 5 * unit)
    else:
        bound = _shifted_bound(q, spec, unit)
    if spec.grid_terminal is not None and num_steps > 1:
        unstretched = time_edges(num_steps, replace(spec, grid_terminal=None))
        bound[:-1] = (1 - spec.grid_terminal) / unstretched[-2] * (bound[:-1] + bound[-2]) + 3 * unit
    return bound.clamp(max=1.0)


def _logit_normal_bound(q: Float[Tensor, "E"], spec: FlowSpec, unit: float) -> Float[Tensor, "E"]:
    """The logit-normal case of `edge_error_bound`: `z = Phi^-1(q)`, `y = mean + std * z`, `t = sigmoid(y)`.

    1. `q`: five roundings (index, `1 - clamp`, step, product, sum), `5 u q`. The usual quantile is
       `sqrt(2) erfinv(2 q - 1)`, and forming `2 q - 1` loses `u / 2` of a *small* `q` too, so the lower tail is no
       better than the upper one. `erfinv` is polished by Newton steps on `erf(x) - p`, good to about `4 u` in
       `p`, that is `2 u` in `q`. Together `|dq| <= u (5 q + 3)`.
    2. `y`: `erfinv` to `4 u`, `sqrt(2)`, `std`, two products and a sum give `|dy| <= u (10 std |z| + 3 |mean|)`.
    3. `sigmoid`: an exponential to one ulp, a sum and a quotient, `4 u t`, which leaves room for a last cast. Formed as
       `1 - sigmoid(-y)` or by a hyperbolic tangent, the last difference rounds at 1: `u` more, but not at unclamped
       ends.

    In the tails `dz/dq = 1 / phi(z)`, `phi` the normal density, is what amplifies `dq`. By the mean value theorem
    `|dt| <= bell * (std * dq / low + dy) + 4 u t`, with `low` the smaller density at the ends of `q -+ dq` (`phi` has
    one peak, so its minimum is at an end) and `bell` the largest `dt/dy = t (1 - t)` over the interval of `y`. Where
    `dq` is not small against the tail (a clamp that the dtype cannot resolve), the image of the whole interval
    is taken instead, since `t` is monotone in `q`. Unclamped ends are exact: `erfinv(-+1)` is infinite.
    """
    rest = q.flip(0)
    dq = unit * (5 * q + 3)
    z = _normal_quantile(q, rest)
    z_low = _normal_quantile((q - dq).clamp(min=0), (rest + dq).clamp(max=1))
    z_high = _normal_quantile((q + dq).clamp(max=1), (rest - dq).clamp(min=0))
    y, y_low, y_high = (spec.grid_mean + spec.grid_std * quantile for quantile in (z, z_low, z_high))
    dy = unit * (10 * spec.grid_std * z.abs() + 3 * abs(spec.grid_mean))
    low = torch.minimum(_normal_density(z_low), _normal_density(z_high))
    slope_bound = _largest_bell(y_low - dy, y_high + dy) * (spec.grid_std * dq / low + dy)
    t = torch.sigmoid(y)
    image_bound = torch.maximum(torch.sigmoid(y_high + dy) - t, t - torch.sigmoid(y_low - dy))
    bound = torch.where(2 * dq < torch.minimum(q, rest), slope_bound, image_bound) + unit
    if spec.grid_clamp == 0:
        bound[0] = bound[-1] = 0.0
    return bound + 4 * unit * t


def _largest_bell(low: Float[Tensor, "E"], high: Float[Tensor, "E"]) -> Float[Tensor, "E"]:
    """The largest `sigmoid(y) (1 - sigmoid(y))` for `y` in `[low, high]`: at the point nearest 0."""
    nearest = torch.zeros_like(low).clamp(low, high)
    return torch.sigmoid(nearest) * torch.sigmoid(-nearest)


def _shifted_bound(q: Float[Tensor, "E"], spec: FlowSpec, unit: float) -> Float[Tensor, "E"]:
    """The shifted case of `edge_error_bound`: `sigma = 1 - q`, `D = 1 + (shift - 1) sigma`, `t = 1 - shift sigma / D`.

    1. `sigma` carries `5 u`, which the map multiplies by its slope `shift / D^2`.
    2. Numerator and quotient add `6 u`, relative to `shift sigma / D`.
    3. The terms of `D` are rounded before they are added and may cancel when `shift < 1`: relative
       `u (2 + 3 |shift - 1| + shift) / D`, which also covers the form `shift / (shift + (1 / sigma - 1))`.
    4. The last difference rounds at 1: `u`.
    """
    shift, sigma = spec.grid_shift, q.flip(0)
    denominator = q + shift * sigma
    slope = shift / denominator**2
    relative = 6 + (2 + 3 * abs(shift - 1) + shift) / denominator
    return unit * (5 * slope + relative * (shift * sigma / denominator) + 1)


def _fractions(num_steps: int, spec: FlowSpec) -> list[Fraction]:
    """`linspace(clamp, 1 - clamp, K + 1)`, or `1 - linspace(1, last, K)` and 1, exactly."""
    if not isinstance(num_steps, int) or isinstance(num_steps, bool) or num_steps < 1:
        raise DeclarationError(f"num_steps: expected a positive integer; found {num_steps!r}")
    if spec.grid_last_sigma is not None:
        reach = (1 - Fraction(spec.grid_last_sigma)) / max(num_steps - 1, 1)
        return [*(reach * k for k in range(num_steps)), Fraction(1)]
    clamp = Fraction(spec.grid_clamp)
    return [clamp + (1 - 2 * clamp) * Fraction(k, num_steps) for k in range(num_steps + 1)]


def _normal_quantile(q: Float[Tensor, "E"], rest: Float[Tensor, "E"]) -> Float[Tensor, "E"]:
    """`Phi^-1(q)` with `rest = 1 - q` given separately, so that both tails are as exact as the lower one."""
    return torch.where(q < rest, torch.special.ndtri(q), -torch.special.ndtri(rest))


def _normal_density(z: Float[Tensor, "E"]) -> Float[Tensor, "E"]:
    """`exp(-z^2 / 2) / sqrt(2 pi)`."""
    return torch.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
