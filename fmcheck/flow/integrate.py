"""Solvers of `dx/dt = f(x, t)` along a time grid, one function a method.

The field gets the state and a scalar flow time. The state keeps its dtype. Edges may descend: the same
functions integrate backwards, and `left` then means the edge where a step starts.
"""

from collections.abc import Callable
from itertools import pairwise

from jaxtyping import Float
from torch import Tensor

from fmcheck.errors import DeclarationError
from fmcheck.flow.grid import check_edges
from fmcheck.spec import EvaluationPoint, FlowSpec

__all__ = ["Field", "euler", "heun", "integrate", "midpoint"]

Field = Callable[[Tensor, Tensor], Tensor]


def euler(
    f: Field, x: Float[Tensor, "*shape"], edges: Float[Tensor, "E"], evaluation_point: EvaluationPoint = "left"
) -> Float[Tensor, "*shape"]:
    """`x <- x + dt f(x, s)`, order 1, with `s` the `left` edge of the step or its `midpoint`.

    The midpoint changes the time only, not the state, so the order stays 1 unless `f` does not depend on `x`.

    Raises:
        DeclarationError: `edges` is not a floating 1-D tensor of at least two entries, or the point is unknown.
    """
    check_edges(edges)
    if evaluation_point not in ("left", "midpoint"):
        raise DeclarationError(f"evaluation_point: expected left or midpoint; found {evaluation_point!r}")
    for start, end in pairwise(edges):
        s = start if evaluation_point == "left" else (start + end) / 2
        x = x + (end - start) * f(x, s)
    return x


def midpoint(f: Field, x: Float[Tensor, "*shape"], edges: Float[Tensor, "E"]) -> Float[Tensor, "*shape"]:
    """Explicit midpoint: `x <- x + dt f(x + dt/2 f(x, a), a + dt/2)`, order 2, two evaluations a step.

    Raises:
        DeclarationError: `edges` is not a floating 1-D tensor of at least two entries.
    """
    check_edges(edges)
    for start, end in pairwise(edges):
        dt = end - start
        halfway = x + dt / 2 * f(x, start)
        x = x + dt * f(halfway, (start + end) / 2)
    return x


def heun(f: Field, x: Float[Tensor, "*shape"], edges: Float[Tensor, "E"]) -> Float[Tensor, "*shape"]:
    """Heun: `k1 = f(x, a)`, `k2 = f(x + dt k1, b)`, `x <- x + dt (k1 + k2) / 2`, order 2, two evaluations a step.

    Raises:
        DeclarationError: `edges` is not a floating 1-D tensor of at least two entries.
    """
    check_edges(edges)
    for start, end in pairwise(edges):
        dt = end - start
        k1 = f(x, start)
        k2 = f(x + dt * k1, end)
        x = x + dt * (k1 + k2) / 2
    return x


def integrate(
    f: Field, x: Float[Tensor, "*shape"], edges: Float[Tensor, "E"], spec: FlowSpec
) -> Float[Tensor, "*shape"]:
    """The state at the last edge by the solver (and, for Euler, the evaluation point) that the spec declares.

    Evaluates `f` at `evaluation_times(edges, spec)`, row by row.
    """
    if spec.solver == "euler":
        return euler(f, x, edges, spec.evaluation_point)
    return midpoint(f, x, edges) if spec.solver == "midpoint" else heun(f, x, edges)
