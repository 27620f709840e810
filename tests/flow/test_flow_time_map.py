"""What the network is told about time, and back; the shift of a noise level."""

from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fmcheck.errors import DeclarationError
from fmcheck.flow import from_argument, shift_sigma, to_argument
from fmcheck.spec import FlowSpec


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("log_snr", [4.0, 2.0, -4.0]),
        ("t", [0.0, 0.25, 1.0]),
        ("sigma", [1.0, 0.75, 0.0]),
        ("timestep", [1000.0, 750.0, 0.0]),
    ],
)
def test_each_named_argument(argument, expected):
    t = torch.tensor([0.0, 0.25, 1.0])
    told = to_argument(t, FlowSpec(time_argument=argument))
    assert told.tolist() == expected
    assert told.dtype == torch.float32


def test_numbers_override_the_name():
    spec = FlowSpec(time_argument="log_snr", time_offset=6.0, time_slope=-12.0)
    assert to_argument(torch.tensor([0.0, 0.5, 1.0]), spec).tolist() == [6.0, 0.0, -6.0]


@given(
    argument=st.sampled_from(["log_snr", "t", "sigma", "timestep"]),
    times=st.lists(st.floats(0, 1), min_size=1, max_size=5),
)
@settings(max_examples=60, deadline=None)
def test_reading_inverts_telling(argument, times):
    spec, t = FlowSpec(time_argument=argument), torch.tensor(times, dtype=torch.float64)
    torch.testing.assert_close(from_argument(to_argument(t, spec), spec), t, rtol=0, atol=4e-16)


def test_reading_is_in_float64_and_keeps_the_shape():
    value = torch.tensor([[1.1, -3.3]], dtype=torch.bfloat16)
    t = from_argument(value, FlowSpec())
    assert t.dtype == torch.float64
    assert t.tolist() == [[(4 - float(entry)) / 8 for entry in value[0]]]


def test_integer_timesteps_are_read():
    t = from_argument(torch.tensor([1000, 250, 0]), FlowSpec(time_argument="timestep"))
    assert t.tolist() == [0.0, 0.75, 1.0]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("shift", [0.03, 0.5, 1.0, 3.0, 12.0])
def test_a_shift_is_good_to_a_few_roundings_in_any_dtype(dtype, shift):
    # Steps of 1/64, whose complements are exact.
    sigma = torch.arange(65, dtype=dtype) / 64
    found = shift_sigma(sigma, shift)
    assert found.dtype == dtype
    assert (found[0].item(), found[-1].item()) == (0.0, 1.0)
    factor = Fraction(torch.tensor(shift, dtype=dtype).item())
    for s, shifted in zip(sigma.tolist(), found.tolist(), strict=True):
        exact = factor * Fraction(s) / (1 + (factor - 1) * Fraction(s))
        # Two products, a sum and a quotient of positive numbers.
        assert abs(Fraction(shifted) - exact) <= 2 * Fraction(torch.finfo(dtype).eps) * exact


@given(sigma=st.floats(0.001, 0.999), shift=st.floats(0.1, 10))
@settings(max_examples=60, deadline=None)
def test_a_shift_moves_the_log_odds_by_its_logarithm(sigma, shift):
    s, factor = torch.tensor(sigma, dtype=torch.float64), torch.tensor(shift, dtype=torch.float64)
    moved = torch.logit(shift_sigma(s, shift)) - torch.logit(s)
    torch.testing.assert_close(moved, torch.log(factor), rtol=0, atol=1e-11)


def test_a_shift_of_three_takes_half_of_the_noise_to_three_quarters():
    assert shift_sigma(torch.tensor([0.5]), 3.0).item() == 0.75


@pytest.mark.parametrize("shift", [0.0, -3.0, float("nan")])
def test_a_shift_must_be_above_zero(shift):
    with pytest.raises(DeclarationError, match="shift: expected a number above 0; found"):
        shift_sigma(torch.tensor([0.5]), shift)
