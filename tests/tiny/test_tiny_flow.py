"""The sampler's pieces, each against numbers from somewhere else: SciPy, closed forms, hand-written loops."""

import itertools
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from scipy.stats import norm
from torch import nn

from fmcheck.tiny import TinyConfig, TinyFlowModel, build
from fmcheck.tiny.model import TimeGrid

MODEL = build().requires_grad_(False)
UNTRAINED = TinyFlowModel().requires_grad_(False)
EPS = np.finfo(np.float32).eps


class Field(nn.Module):
    """Stands in for the velocity network and keeps what it was asked."""

    def __init__(self, formula):
        super().__init__()
        self.formula = formula
        self.calls = []

    def forward(self, x, log_snr, null_indicator):
        self.calls.append((x.clone(), log_snr.clone(), null_indicator.clone()))
        t = ((4 - log_snr) / 8)[:, None, None, None]
        return self.formula(x, t, null_indicator[:, None, None, None])


def with_field(model, formula):
    model.fm_transformers = Field(formula)
    return model


# Time grid


def grid_bound(q, mean, std):
    """Largest float32 error of an edge: q and 2q-1 are each rounded, icdf and sigmoid have a few ulp."""
    z = norm.ppf(q, mean, std)
    inner = np.isfinite(z)
    z = np.where(inner, z, 0.0)
    slope = expit(z) * expit(-z)
    from_q = np.where(inner, slope / norm.pdf(z, mean, std), 0.0) * 2 * EPS
    return from_q + slope * (np.abs(z) + abs(mean)) * 4 * EPS + 2 * EPS


@settings(max_examples=30, deadline=None)
@given(steps=st.integers(1, 200), mean=st.sampled_from([0.0, -0.5, 1.0]), std=st.sampled_from([0.5, 1.0, 1.5]))
def test_edges_are_the_quantiles_of_the_training_times(steps, mean, std):
    model = TinyFlowModel.__new__(TinyFlowModel)
    nn.Module.__init__(model)
    model.config = TinyConfig(grid_mean=mean, grid_std=std)
    q = np.linspace(0, 1, steps + 1)
    expected, bound = expit(norm.ppf(q, mean, std)), grid_bound(q, mean, std)
    grid = model.time_grid(steps)
    assert (np.abs(grid.t_edges.numpy() - expected) <= bound).all()
    half = (bound[1:] + bound[:-1]) / 2 + EPS
    assert (np.abs(grid.t_mid.numpy() - (expected[1:] + expected[:-1]) / 2) <= half).all()
    assert (np.abs(grid.dt.numpy() - np.diff(expected)) <= 2 * half).all()


@pytest.mark.parametrize("steps", [1, 2, 8, 50, 1000])
def test_grid_covers_the_whole_path(steps):
    grid = MODEL.time_grid(steps)
    assert grid.t_edges.shape == (steps + 1,)
    assert grid.t_mid.shape == grid.dt.shape == (steps,)
    assert all(part.dtype == torch.float32 for part in grid)
    assert grid.t_edges[0].item() == 0.0
    assert grid.t_edges[-1].item() == 1.0
    assert (grid.dt > 0).all()
    # Differences of neighbours are rounded once each, by at most half an ulp of themselves.
    assert abs(grid.dt.double().sum().item() - 1) <= EPS


def test_grid_is_deterministic():
    assert all(torch.equal(a, b) for a, b in zip(MODEL.time_grid(7), MODEL.time_grid(7), strict=True))


@pytest.mark.parametrize("steps", [0, -1, 2.0, True, None, "8"])
def test_number_of_steps_must_be_a_positive_int(steps):
    with pytest.raises(ValueError, match="num_steps: expected a positive int, found"):
        MODEL.time_grid(steps)


def test_log_snr_falls_from_4_to_minus_4():
    found = MODEL.log_snr(torch.tensor([0.0, 0.25, 0.5, 1.0]))
    assert found.tolist() == [4.0, 2.0, 0.0, -4.0]
    assert found.dtype == torch.float32
    assert MODEL.log_snr(torch.tensor(0.5)).shape == ()


# Sizes and initial state


@settings(max_examples=20, deadline=None)
@given(h=st.integers(1, 40), w=st.integers(1, 40))
def test_latent_shape_is_a_32nd(h, w):
    assert MODEL.latent_shape(32 * h, 32 * w) == (32, h, w)


@pytest.mark.parametrize("bad", [0, -32, 33, 256.0, True, None, "256"])
def test_sizes_off_the_grid_are_refused_by_name(bad):
    with pytest.raises(ValueError, match="height: expected"):
        MODEL.latent_shape(bad, 256)
    with pytest.raises(ValueError, match="width: expected"):
        MODEL.latent_shape(256, bad)


@pytest.mark.parametrize(("height", "width"), [(256, 256), (128, 512), (512, 128), (64, 1024), (2048, 32)])
def test_equal_sizes_are_reshaped_in_silence(randn, height, width):
    z = randn(3, 2048)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        x = MODEL.initial_state(z, height, width)
    assert x.dtype == torch.float32
    np.testing.assert_array_equal(x, z.numpy().reshape(3, 32, height // 32, width // 32))


def test_a_larger_text_latent_is_reshaped_too(randn):
    z = randn(1, 8192)
    assert torch.equal(MODEL.initial_state(z, 512, 512), z.reshape(1, 32, 16, 16))


def test_fallback_warns_and_is_resize_then_the_registered_layer(randn):
    z = randn(2, 2048)
    with pytest.warns(UserWarning, match="2048 numbers but a 128x128 picture needs 512"):
        x = MODEL.initial_state(z, 128, 128)
    # At half the size, bilinear without aligned corners is the mean of 2x2 cells.
    halved = z.numpy().astype(np.float64).reshape(2, 32, 4, 2, 4, 2).mean(axis=(3, 5))
    weight, bias = (p.numpy().astype(np.float64) for p in MODEL.latent_fallback.parameters())
    expected = np.einsum("oc,bchw->bohw", weight, halved) + bias[None, :, None, None]
    # 32 products and sums of numbers of order one.
    np.testing.assert_allclose(x, expected, rtol=0, atol=64 * 4 * EPS)


def test_fallback_layer_is_near_the_identity():
    eye = np.eye(32)
    assert np.abs(MODEL.latent_fallback.weight.numpy() - eye).max() < 0.1
    assert np.abs(MODEL.latent_fallback.weight.numpy() - eye).max() > 0


@pytest.mark.filterwarnings("ignore:the text latent")
def test_fallback_rows_do_not_see_each_other(assert_rows_alone, randn):
    assert_rows_alone(lambda z: MODEL.initial_state(z, 96, 160), randn(3, 2048))


@pytest.mark.filterwarnings("ignore:the text latent")
def test_fallback_builds_nothing(monkeypatch, randn):
    names = [name for name, _ in MODEL.named_parameters()]
    first = MODEL.initial_state(randn(1, 2048), 320, 96)

    def refuse(self, *args, **kwargs):
        raise AssertionError(f"a {type(self).__name__} was built at inference")

    monkeypatch.setattr(nn.Module, "__init__", refuse)
    assert torch.equal(MODEL.initial_state(randn(1, 2048), 320, 96), first)
    assert [name for name, _ in MODEL.named_parameters()] == names


@pytest.mark.parametrize("shape", [(2048,), (1, 100), (1, 32, 8, 8)])
def test_text_latents_of_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match="z_text: expected shape"):
        MODEL.initial_state(torch.zeros(shape), 64, 64)


# Guidance


@pytest.mark.parametrize("w", [-1.0, 0.0, 2.0, 3.0, 4.5, 6.0])
def test_combine_in_closed_form(randn, w):
    c, u = randn(2, 32, 3, 4), randn(2, 32, 3, 4, seed=1)
    wide_c, wide_u = c.numpy().astype(np.float64), u.numpy().astype(np.float64)
    expected = (1 + w) * wide_c - w * wide_u
    bound = 2 * EPS * ((1 + abs(w)) * np.abs(wide_c) + abs(w) * np.abs(wide_u))
    assert (np.abs(MODEL.combine(c, u, w).numpy() - expected) <= bound).all()


def test_combine_computes_in_float32():
    c, u = torch.full((1, 1, 1, 1), 1.0), torch.full((1, 1, 1, 1), 0.99609375)
    found = MODEL.combine(c.bfloat16(), u.bfloat16(), 3.0)
    # Both are exact in bfloat16, the answer 1 + 3/256 is not.
    assert found.dtype == torch.float32
    assert found.item() == 1.01171875


def test_guided_call_is_one_doubled_batch(fresh_model, randn):
    model = with_field(fresh_model, lambda x, t, null: torch.where(null, -x, x))
    x = randn(3, 32, 2, 4)
    c, u = model.velocities(x, torch.tensor(0.25), guided=True)
    assert torch.equal(c, x)
    assert torch.equal(u, -x)
    [(x_cat, log_snr, null)] = model.fm_transformers.calls
    assert torch.equal(x_cat, torch.cat([x, x]))
    assert log_snr.tolist() == [2.0] * 6
    assert log_snr.dtype == torch.float32
    assert null.tolist() == [False] * 3 + [True] * 3
    assert null.dtype == torch.bool


def test_unguided_call_has_b_conditional_rows(fresh_model, randn):
    model = with_field(fresh_model, lambda x, t, null: x)
    v, nothing = model.velocities(randn(3, 32, 2, 4), torch.tensor(0.5), guided=False)
    assert nothing is None
    assert v.shape == (3, 32, 2, 4)
    [(x, log_snr, null)] = model.fm_transformers.calls
    assert x.shape[0] == 3
    assert log_snr.shape == (3,)
    assert not null.any()


# Integration


@pytest.mark.parametrize("w", [0.0, 3.0])
def test_constant_velocities_arrive_at_the_closed_form(fresh_model, randn, w):
    model = with_field(fresh_model, lambda x, t, null: torch.where(null, torch.ones_like(x), 2 * torch.ones_like(x)))
    x = randn(2, 32, 2, 2)
    found = model.integrate(x, model.time_grid(8), w)
    np.testing.assert_allclose(found, x.numpy() + (1 + w) * 2 - w, rtol=0, atol=8 * 16 * EPS)


@settings(max_examples=10, deadline=None)
@given(steps=st.integers(1, 20), w=st.sampled_from([0.0, 2.0, 4.5]))
def test_euler_at_midpoint_times_against_a_loop_in_numpy(randn, steps, w):
    model = with_field(TinyFlowModel(), lambda x, t, null: torch.where(null, 0.5 * t * x, (1 + t * t) - x))
    start = randn(2, 32, 1, 3)
    found = model.integrate(start, model.time_grid(steps), w)
    edges = expit(norm.ppf(np.linspace(0, 1, steps + 1)))
    x = start.numpy().astype(np.float64)
    for left, right in itertools.pairwise(edges):
        t = (left + right) / 2
        x = x + (right - left) * ((1 + w) * ((1 + t * t) - x) - w * 0.5 * t * x)
    # Growth of an error over the path is at most exp(1 + 2w); states stay below 16.
    np.testing.assert_allclose(found, x, rtol=0, atol=np.exp(1 + 2 * w) * 16 * EPS * 4)
    assert [call[0].shape[0] for call in model.fm_transformers.calls] == [4 if w else 2] * steps


def test_small_steps_are_not_lost(fresh_model):
    """A bfloat16 velocity, a state of 256: steps of 1/1000 would all vanish in a bfloat16 state."""
    model = with_field(fresh_model, lambda x, t, null: torch.ones_like(x).bfloat16())
    edges = torch.linspace(0, 1, 1001)
    x = model.integrate(torch.full((1, 32, 1, 1), 256.0), TimeGrid(edges, edges[:-1], edges.diff()), 0.0)
    # A thousand additions near 256, each rounded by at most half an ulp (2**-16).
    assert x.dtype == torch.float32
    assert (x - 257).abs().max().item() <= 1000 * 2**-16


def test_halving_the_steps_halves_the_error_of_a_network(randn):
    """An untrained one, which is smooth where it was never trained: at starts that no text has."""
    x = 0.9 * randn(1, 32, 4, 4)
    fine, *coarse = (UNTRAINED.integrate(x, UNTRAINED.time_grid(k), 2.0) for k in (128, 32, 16, 8))
    errors = [(y - fine).norm().item() for y in coarse]
    slopes = np.diff(np.log2(errors))
    # First order, with a reference that still has a quarter of the finest error.
    assert (slopes > 0.7).all()
    assert (slopes < 1.8).all()


def test_state_is_float32_whatever_comes_in(fresh_model, randn):
    seen = with_field(fresh_model, lambda x, t, null: x)
    seen.integrate(randn(1, 32, 1, 1).bfloat16(), seen.time_grid(2), 0.0)
    assert {call[0].dtype for call in seen.fm_transformers.calls} == {torch.float32}


def test_input_of_integrate_is_not_written(randn):
    x = randn(1, 32, 2, 2)
    MODEL.integrate(x, MODEL.time_grid(2), 3.0)
    assert torch.equal(x, randn(1, 32, 2, 2))


@settings(max_examples=4, deadline=None)
@given(batch=st.integers(2, 4), h=st.integers(1, 4), w=st.integers(1, 4), scale=st.sampled_from([0.0, 3.0]))
def test_rows_do_not_see_each_other_through_the_whole_loop(assert_rows_alone, randn, batch, h, w, scale):
    grid = MODEL.time_grid(2)
    assert_rows_alone(lambda x: MODEL.decode_state(MODEL.integrate(x, grid, scale)), randn(batch, 32, h, w))


def test_decode_state_is_decode_of_sample(randn):
    x = randn(1, 32, 2, 2)
    autoencoder = MODEL.autoencoder
    assert torch.equal(MODEL.decode_state(x), autoencoder.decode(autoencoder.sample(x)))
