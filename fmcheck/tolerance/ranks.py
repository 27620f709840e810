"""Bounds on what a network that is spread over several ranks may give."""

from fmcheck.tolerance.devices import device_bound

__all__ = ["split_bound"]


def split_bound(eps: float, *, passes: int, weight: float = 0.0, collected: bool = False, calls: int = 0) -> float:
    """Bound on `rms(a - b) / rms(a)` of a tensor of one process and of a network that is spread over ranks.

    Where only weights are spread and gathered before use (FSDP), the kernels and their operands are the same, and so
    are the bits. Where the products are spread (tensor parallelism), a sum of `n` products becomes one of `R` partial
    sums: each order of the sum is within `gamma(n) sum |a_i b_i|` of the exact one (Higham, section 3.1), so that two
    orders differ by at most `2 gamma(n) sum |a_i b_i|`, and by about `2 sqrt(n) u` of it in practice (rounding errors
    have either sign; Higham and Mary, SIAM J. Sci. Comput. 41, 2019). The layers behind it amplify that by the
    condition number `k` of the rest of the network. What is allowed for kernels of two devices, `sqrt(eps)` a pass,
    covers `sqrt(n) k` up to `1 / sqrt(eps)`, since `2 sqrt(n) u k = sqrt(n) k eps`: in float32 `n = 10,000` with
    `k = 29`. A sum that is not reduced, or divided by the number of ranks, is of order one.

    Args:
        eps: of the coarsest arithmetic in the way.
        passes: networks in a row before the tensor.
        collected: whether the tensor has collected velocities, guided with `weight`, over `calls` of the network.
    """
    return device_bound(eps, passes=passes, weight=weight, guided=collected, calls=calls)
