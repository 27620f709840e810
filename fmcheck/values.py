"""What counts as a number in a declaration, whatever a file or a caller puts there."""

import math
from typing import TypeGuard

__all__ = ["is_count", "is_finite_number", "is_range", "is_seed"]


def is_count(value: object) -> TypeGuard[int]:
    """A positive integer. `True` is none, although Python counts it as 1."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def is_seed(value: object, bits: int | None = None) -> TypeGuard[int]:
    """An integer from 0 that so many bits can hold; no bool."""
    if isinstance(value, bool) or not isinstance(value, int):
        return False
    return value >= 0 and (bits is None or value < 2**bits)


def is_finite_number(value: object) -> TypeGuard[int | float]:
    """An int or float that a float can hold; no bool, NaN, infinity or integer of hundreds of digits."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def is_range(value: object) -> TypeGuard[tuple[float, float]]:
    """A pair `(low, high)` of finite numbers with `low < high`."""
    return isinstance(value, tuple) and len(value) == 2 and all(map(is_finite_number, value)) and value[0] < value[1]
