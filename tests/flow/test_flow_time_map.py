"""What the network is told about time, and back."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fmcheck.flow import from_argument, to_argument
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
