"""Small questions about tensors that rules ask hundreds of times: are they finite, and how do parts join."""

import math

import pytest
import torch

from fmcheck.tensors import all_finite, joined

FLOATS = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [0, 17, 59])
def test_one_bad_element_anywhere_is_seen(dtype: torch.dtype, bad: float, place: int) -> None:
    tensor = torch.ones(3, 4, 5, dtype=dtype)
    assert all_finite(tensor)
    tensor.view(-1)[place] = bad
    assert not all_finite(tensor)


@pytest.mark.parametrize("dtype", FLOATS)
def test_the_largest_numbers_of_a_dtype_are_finite(dtype: torch.dtype) -> None:
    limits = torch.finfo(dtype)
    assert all_finite(torch.tensor([limits.min, limits.max, limits.tiny], dtype=dtype))


@pytest.mark.parametrize(
    "tensor",
    [torch.zeros(0, 3), torch.tensor(3), torch.tensor([True, False]), torch.tensor([2**62])],
    ids=["empty", "integer scalar", "flags", "large integer"],
)
def test_what_cannot_hold_infinity_is_finite(tensor: torch.Tensor) -> None:
    assert all_finite(tensor)


def test_both_parts_of_complex_numbers_are_looked_at() -> None:
    assert all_finite(torch.tensor([1 + 2j]))
    assert not all_finite(torch.tensor([complex(1, math.inf)]))


def test_tensors_in_a_graph_and_without_one() -> None:
    assert all_finite(torch.ones(2, requires_grad=True))
    with torch.inference_mode():
        assert not all_finite(torch.tensor([math.nan]))


def test_parts_join_along_their_rows() -> None:
    first, second = torch.zeros(2, 3), torch.ones(1, 3)
    assert torch.equal(joined([first, second]), torch.tensor([[0.0] * 3, [0.0] * 3, [1.0] * 3]))


def test_a_single_part_is_not_copied() -> None:
    part = torch.zeros(2, 3)
    assert joined([part]) is part
