"""The bound for other devices: what it is made of, and that it tells unrelated tensors apart."""

import math

import pytest
import torch

from fmcheck.tolerance.devices import TF32_EPS, device_bound, kernel_eps

FLOAT32 = torch.finfo(torch.float32).eps


@pytest.mark.parametrize(
    ("dtype", "settings", "eps"),
    [
        (torch.float32, {}, FLOAT32),
        (torch.float32, {"matmul": "high"}, TF32_EPS),
        (torch.float32, {"matmul": "medium"}, 2**-7),
        (torch.float32, {"convolutions_in_tf32": True}, TF32_EPS),
        (torch.float32, {"matmul": "medium", "convolutions_in_tf32": True}, 2**-7),
        (torch.bfloat16, {"matmul": "high", "convolutions_in_tf32": True}, 2**-7),
        (torch.float64, {"matmul": "medium", "convolutions_in_tf32": True}, 2**-52),
    ],
)
def test_eps_of_the_kernels(dtype: torch.dtype, settings: dict, eps: float) -> None:
    assert kernel_eps(dtype, **settings) == eps


def test_what_the_bound_is_made_of() -> None:
    d = math.sqrt(FLOAT32)
    assert device_bound(FLOAT32, passes=1) == pytest.approx(d)
    assert device_bound(FLOAT32, passes=2, weight=2.5, calls=4) == pytest.approx(2 * d), "nothing was collected yet"
    guided = device_bound(FLOAT32, passes=2, weight=2.5, guided=True, calls=4)
    assert guided == pytest.approx(8 * d + 4 * FLOAT32)
    negative = device_bound(FLOAT32, passes=2, weight=-3.5, guided=True, calls=4)
    assert negative == pytest.approx(guided), "the halves change places"


@pytest.mark.parametrize("weight", [0.0, 7.0, -10.0, 1e5])
def test_unrelated_tensors_are_told_apart(weight: float) -> None:
    assert device_bound(2**-7, passes=2, weight=weight, guided=True, calls=1000) <= 1 < math.sqrt(2)
