"""Velocity network: one time and one null flag a row, any height and width, float32 times under bfloat16 weights."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fmcheck.tiny import build
from fmcheck.tiny.layers import grid_positions, normalise, sinusoids

NETWORK = build().fm_transformers.requires_grad_(False)
HALF = build(dtype=torch.bfloat16).fm_transformers.requires_grad_(False)


def flags(rows, value=False):
    return torch.full((rows,), value, dtype=torch.bool)


def relative(a, b):
    return ((a - b).norm() / b.norm()).item()


@settings(max_examples=12, deadline=None)
@given(rows=st.integers(1, 4), h=st.integers(1, 9), w=st.integers(1, 9))
def test_answers_at_any_size(randn, rows, h, w):
    v = NETWORK(randn(rows, 32, h, w), torch.zeros(rows), flags(rows))
    assert v.shape == (rows, 32, h, w)
    assert v.dtype == torch.float32
    assert v.is_contiguous()


@settings(max_examples=8, deadline=None)
@given(rows=st.integers(2, 5), h=st.integers(1, 6), w=st.integers(1, 6), half=st.booleans())
def test_rows_do_not_see_each_other(assert_rows_alone, randn, rows, h, w, half):
    network = HALF if half else NETWORK
    log_snr, null = torch.linspace(-4, 4, rows), torch.arange(rows) % 2 == 0
    assert_rows_alone(lambda x: network(x, log_snr, null), randn(rows, 32, h, w))


def test_times_of_other_rows_have_no_influence(assert_rows_alone, randn):
    x = randn(3, 32, 4, 4)
    assert_rows_alone(lambda log_snr: NETWORK(x, log_snr, flags(3)), torch.tensor([-4.0, 0.0, 4.0]))


@pytest.mark.parametrize("t", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_null_flag_changes_the_velocity(randn, t):
    x, log_snr = randn(2, 32, 8, 8), torch.full((2,), 4 - 8 * t)
    assert relative(NETWORK(x, log_snr, flags(2, True)), NETWORK(x, log_snr, flags(2))) > 0.2


def test_time_changes_the_velocity_smoothly(randn):
    x = randn(1, 32, 8, 8)
    times = [NETWORK(x, torch.tensor([4 - 8 * t]), flags(1)) for t in (0.0, 0.01, 0.5, 1.0)]
    assert relative(times[2], times[0]) > 0.3
    assert relative(times[3], times[2]) > 0.3
    assert 0 < relative(times[1], times[0]) < 0.1


def test_state_changes_the_velocity_and_not_in_proportion(randn):
    x, log_snr = randn(1, 32, 8, 8), torch.zeros(1)
    v, doubled = NETWORK(x, log_snr, flags(1)), NETWORK(2 * x, log_snr, flags(1))
    assert relative(doubled, v) > 0.1
    assert relative(doubled, 2 * v) > 0.1


def test_a_cell_sees_the_whole_picture_and_its_place(randn):
    x = randn(1, 32, 3, 5)
    changed = x.clone()
    changed[..., 0, 0] += 1
    difference = NETWORK(changed, torch.zeros(1), flags(1)) - NETWORK(x, torch.zeros(1), flags(1))
    assert (difference.abs().amax(1) > 0).all()
    same = torch.ones(1, 32, 3, 5)
    v = NETWORK(same, torch.zeros(1), flags(1))[0].flatten(1).T
    assert torch.cdist(v, v).add(torch.eye(15)).min().item() > 0.1


def test_flag_and_time_belong_to_their_row(randn):
    x = randn(1, 32, 4, 4).repeat(3, 1, 1, 1)
    v = NETWORK(x, torch.tensor([1.0, 1.0, -1.0]), torch.tensor([False, True, False]))
    assert relative(v[1], v[0]) > 0.2
    assert relative(v[2], v[0]) > 0.1


def test_bfloat16_weights_answer_in_bfloat16_and_nearly_the_same(randn):
    x, log_snr = randn(2, 32, 8, 8), torch.tensor([3.0, -1.0])
    v = HALF(x, log_snr, flags(2))
    assert v.dtype == torch.bfloat16
    assert relative(v.float(), NETWORK(x, log_snr, flags(2))) < 0.05


def test_a_thousand_times_stay_distinct_under_bfloat16_weights():
    log_snr = 4 - 8 * torch.linspace(0, 1, 1001)
    embedded = HALF.condition(log_snr, flags(1001)).float()
    assert len(torch.unique(embedded, dim=0)) == 1001


def test_waves_agree_with_numpy_in_float64():
    values = np.linspace(-4, 4, 9)
    frequencies = np.geomspace(0.1, 2.0, 8)
    angles = values[:, None] * frequencies[None, :]
    expected = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
    found = sinusoids(torch.tensor(values, dtype=torch.float32), 16, 0.1, 2.0)
    # The angle is at most 8 and carries a few relative roundings from the power and the product.
    np.testing.assert_allclose(found, expected, rtol=0, atol=8 * 8 * np.finfo(np.float32).eps)


def test_norm_is_over_one_token(randn):
    x = randn(2, 3, 16)
    wide = x.numpy().astype(np.float64)
    expected = (wide - wide.mean(-1, keepdims=True)) / np.sqrt(wide.var(-1, keepdims=True) + 1e-6)
    # Sums of 16 numbers, each below 4.
    np.testing.assert_allclose(normalise(x), expected, rtol=0, atol=16 * 4 * np.finfo(np.float32).eps)


def test_positions_are_row_major_and_scaled_to_the_native_extent():
    device = torch.device("cpu")
    fine, coarse = grid_positions(6, 12, 16, 8, device), grid_positions(2, 4, 16, 8, device)
    assert fine.shape == (72, 16)
    assert fine.dtype == torch.float32
    # Cell (1, 2) of 2x4 has its centre at cell (4, 7) of 6x12.
    torch.testing.assert_close(coarse[1 * 4 + 2], fine[4 * 12 + 7])
    assert torch.equal(fine[0, :8], fine[1, :8])
    assert not torch.equal(fine[0, 8:], fine[1, 8:])


@pytest.mark.parametrize("shape", [(2, 1), (2, 1, 1, 1), (1,), (3,), ()])
def test_log_snr_must_be_one_number_a_row(randn, shape):
    with pytest.raises(ValueError, match=r"log_snr: expected shape \[2\], found float32"):
        NETWORK(randn(2, 32, 2, 2), torch.zeros(shape), flags(2))


@pytest.mark.parametrize("null", [flags(1), flags(4), flags(2).float(), flags(2)[:, None], None])
def test_null_indicator_must_be_one_bool_a_row(randn, null):
    with pytest.raises(ValueError, match=r"null_indicator: expected bool\[2\], found"):
        NETWORK(randn(2, 32, 2, 2), torch.zeros(2), null)


def test_latents_need_32_channels(randn):
    with pytest.raises(ValueError, match=r"x: expected shape \[\*, 32, \*, \*\], found float32\[2, 3, 2, 2\]"):
        NETWORK(randn(2, 3, 2, 2), torch.zeros(2), flags(2))
