"""The probability path between source `x0` and data `x1`, its velocity, and predictions turned into velocities."""

from jaxtyping import Float
from torch import Tensor

from fmcheck.errors import DeclarationError
from fmcheck.spec import FlowSpec

__all__ = ["RowTime", "as_prediction", "as_velocity", "interpolate", "per_row", "velocity_target"]

# One flow time a row, or one for all rows.
RowTime = Float[Tensor, "B"] | Float[Tensor, ""]


def per_row(t: RowTime, x: Float[Tensor, "B *rest"]) -> Float[Tensor, "..."]:
    """`t` shaped so that it multiplies the rows of `x`: `[B]` becomes `[B, 1, ..., 1]`, a scalar stays one.

    Needed because `t * x` with `t` of shape `[B]` runs along the *last* axis, without complaint when `B == w`.

    Raises:
        DeclarationError: `t` is neither a scalar nor has one entry a row.
    """
    if t.dim() == 0:
        return t
    if x.dim() == 0 or t.shape != x.shape[:1]:
        raise DeclarationError(
            f"t: expected a scalar or shape ({x.shape[0] if x.dim() else ''},), one entry a row of a state"
            f" {tuple(x.shape)}; found {tuple(t.shape)}"
        )
    return t.reshape(-1, *(1,) * (x.dim() - 1))


def interpolate(
    x0: Float[Tensor, "B *rest"], x1: Float[Tensor, "B *rest"], t: RowTime, sigma_min: float = 0.0
) -> Float[Tensor, "B *rest"]:
    """`x_t = (1 - (1 - s_min) t) x0 + t x1` (conditional OT path; flow matching, arXiv 2210.02747, eq. 22).

    The coefficients are computed in the dtype of `t` and rounded to that of `x0`, which the result keeps.

    Args:
        x0: source end.
        x1: data end.
        t: flow times, `[B]` or a scalar.
        sigma_min: `s_min`, the width that is left around `x1` at `t = 1`.

    Raises:
        DeclarationError: the ends differ in shape, or `t` has not one entry a row.
    """
    _check_ends(x0, x1)
    time = per_row(t, x0)
    return (1 - (1 - sigma_min) * time).to(x0.dtype) * x0 + time.to(x0.dtype) * x1


def velocity_target(
    x0: Float[Tensor, "B *rest"], x1: Float[Tensor, "B *rest"], sigma_min: float = 0.0
) -> Float[Tensor, "B *rest"]:
    """`d x_t / dt = x1 - (1 - s_min) x0`, constant along the path (same source, eq. 23).

    Raises:
        DeclarationError: the ends differ in shape.
    """
    _check_ends(x0, x1)
    return x1 - (1 - sigma_min) * x0


def as_velocity(
    prediction: Float[Tensor, "B *rest"], x: Float[Tensor, "B *rest"], t: RowTime, spec: FlowSpec
) -> Float[Tensor, "B *rest"]:
    """The output of the network as `dx/dt`, following `spec.prediction`.

    With `r = 1 - s_min` and `a = 1 - r t`, the path is `x = a x0 + t x1` and `v = x1 - r x0`, and `a + r t = 1`:

    - `velocity`: `v`; `reverse_velocity`: `-v`;
    - `x1`: `x0 = (x - t x1) / a`, so `v = (x1 - r x) / a`; singular where `a = 0`: at `t = 1` when `s_min = 0`;
    - `x0`: `x1 = (x - a x0) / t`, so `v = (x - x0) / t`; singular at `t = 0`.

    At a singularity the prediction says nothing about `v`; the result is then inf or nan, as IEEE division gives it.

    Raises:
        DeclarationError: prediction and state differ in shape, or `t` has not one entry a row.
    """
    _check_ends(prediction, x)
    time, ratio = per_row(t, x), 1 - spec.sigma_min
    if spec.prediction == "velocity":
        return prediction
    if spec.prediction == "reverse_velocity":
        return -prediction
    if spec.prediction == "x1":
        return (prediction - ratio * x) / (1 - ratio * time).to(x.dtype)
    return (x - prediction) / time.to(x.dtype)


def as_prediction(
    velocity: Float[Tensor, "B *rest"], x: Float[Tensor, "B *rest"], t: RowTime, spec: FlowSpec
) -> Float[Tensor, "B *rest"]:
    """What the network returns for `dx/dt` at a state, following `spec.prediction`: the inverse of `as_velocity`.

    `x1 = (1 - r t) v + r x` and `x0 = x - t v`, with `r = 1 - s_min`; never singular.

    Raises:
        DeclarationError: velocity and state differ in shape, or `t` has not one entry a row.
    """
    _check_ends(velocity, x)
    time, ratio = per_row(t, x), 1 - spec.sigma_min
    if spec.prediction == "velocity":
        return velocity
    if spec.prediction == "reverse_velocity":
        return -velocity
    return (1 - ratio * time) * velocity + ratio * x if spec.prediction == "x1" else x - time * velocity


def _check_ends(first: Tensor, second: Tensor) -> None:
    if first.shape != second.shape:
        raise DeclarationError(
            f"path: expected tensors of one shape; found {tuple(first.shape)} and {tuple(second.shape)}"
        )
