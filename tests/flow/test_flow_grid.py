"""The time grid against 50-digit arithmetic, published numbers and its own symmetries."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, ndtri

from fmcheck.errors import DeclarationError, NotInformative
from fmcheck.flow import edge_error_bound, evaluation_times, time_edges
from fmcheck.spec import FlowSpec

STEPS = st.integers(1, 200)
SPECS = st.builds(
    FlowSpec,
    grid=st.sampled_from(["logit_normal", "uniform", "shifted"]),
    grid_mean=st.floats(-2, 2),
    grid_std=st.floats(0.2, 2.5),
    grid_clamp=st.sampled_from([0.0, 1e-6, 1e-3, 0.05]),
    grid_shift=st.floats(0.2, 8),
)


@pytest.mark.parametrize("num_steps", [1, 2, 3, 7, 28, 50])
@pytest.mark.parametrize("clamp", [0.0, 1e-6, 1e-3])
@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (0.5, 0.7), (-1.3, 1.6)])
def test_logit_normal_edges_agree_with_fifty_digits(exact_edges, num_steps, clamp, mean, std):
    spec = FlowSpec(grid_mean=mean, grid_std=std, grid_clamp=clamp)
    exact = [float(edge) for edge in exact_edges(num_steps, spec)]
    np.testing.assert_allclose(time_edges(num_steps, spec).numpy(), exact, rtol=4e-15, atol=0)


@pytest.mark.parametrize("num_steps", [4, 9, 64])
def test_logit_normal_edges_agree_with_scipy(num_steps):
    spec = FlowSpec(grid_mean=0.3, grid_std=1.2)
    expected = expit(0.3 + 1.2 * ndtri(np.arange(num_steps + 1) / num_steps))
    np.testing.assert_allclose(time_edges(num_steps, spec).numpy(), expected, rtol=1e-14, atol=0)


@given(num_steps=STEPS, spec=SPECS)
@settings(max_examples=40, deadline=None)
def test_every_float64_edge_is_within_its_own_bound(exact_edges, num_steps, spec):
    exact = np.array([float(edge) for edge in exact_edges(num_steps, spec)])
    error = np.abs(time_edges(num_steps, spec).numpy() - exact)
    # The comparison itself rounds the exact edge once more.
    assert (error <= edge_error_bound(num_steps, spec, torch.float64).numpy() + 2.0**-53).all()


@given(num_steps=STEPS, spec=SPECS)
@settings(max_examples=60, deadline=None)
def test_edges_ascend_strictly_within_the_unit_interval(num_steps, spec):
    edges = time_edges(num_steps, spec)
    assert edges.shape == (num_steps + 1,)
    assert bool((edges.diff() > 0).all())
    assert edges[0] >= 0
    assert edges[-1] <= 1


@pytest.mark.parametrize("grid", ["logit_normal", "uniform", "shifted"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_an_unclamped_grid_covers_the_path_exactly(grid, dtype):
    edges = time_edges(5, FlowSpec(grid=grid, grid_mean=0.4, grid_shift=3.0), dtype=dtype)
    assert edges[0].item() == 0.0
    assert edges[-1].item() == 1.0
    assert edges.dtype == dtype


# 1e-6 to 0.98290 in exact arithmetic. The often quoted 0.98286 is what float32 makes of it, see below.
@pytest.mark.parametrize(("clamp", "total"), [(1e-6, 0.98290), (1e-3, 0.91298)])
@pytest.mark.parametrize("num_steps", [1, 2, 10, 50, 200])
def test_a_clamp_loses_the_same_share_of_the_path_for_every_number_of_steps(clamp, total, num_steps):
    steps = time_edges(num_steps, FlowSpec(grid_clamp=clamp)).diff()
    assert steps.sum().item() == pytest.approx(total, abs=5e-6)


@pytest.mark.parametrize(("clamp", "total"), [(1e-6, 0.98286), (1e-3, 0.91298)])
@pytest.mark.parametrize("num_steps", [1, 10, 50])
def test_the_share_lost_in_float32_differs_within_the_bound(clamp, total, num_steps):
    spec = FlowSpec(grid_clamp=clamp)
    q = torch.linspace(clamp, 1 - clamp, num_steps + 1)
    usual = torch.sigmoid(torch.distributions.Normal(0.0, 1.0).icdf(q)).double()
    assert (usual[-1] - usual[0]).item() == pytest.approx(total, abs=5e-6)
    exact, allowed = time_edges(num_steps, spec), edge_error_bound(num_steps, spec, torch.float32)
    assert bool(((usual - exact).abs() <= allowed).all())


@given(num_steps=STEPS, std=st.floats(0.2, 2.5), clamp=st.sampled_from([0.0, 1e-6, 1e-3]))
@settings(max_examples=40, deadline=None)
def test_a_logit_normal_grid_of_mean_zero_is_symmetric(num_steps, std, clamp):
    edges = time_edges(num_steps, FlowSpec(grid_std=std, grid_clamp=clamp))
    torch.testing.assert_close(edges, 1 - edges.flip(0), rtol=0, atol=1e-15)


@given(num_steps=STEPS, spec=SPECS)
@settings(max_examples=40, deadline=None)
def test_doubling_the_steps_keeps_the_edges(num_steps, spec):
    coarse, fine = time_edges(num_steps, spec), time_edges(2 * num_steps, spec)
    allowed = edge_error_bound(num_steps, spec, torch.float64)
    assert bool(((coarse - fine[::2]).abs() <= 2 * allowed).all())


@given(num_steps=STEPS, mean=st.floats(-2, 2), std=st.floats(0.2, 2.5))
@settings(max_examples=40, deadline=None)
def test_a_negated_mean_mirrors_the_grid(num_steps, mean, std):
    edges = time_edges(num_steps, FlowSpec(grid_mean=mean, grid_std=std))
    mirrored = time_edges(num_steps, FlowSpec(grid_mean=-mean, grid_std=std))
    torch.testing.assert_close(edges, 1 - mirrored.flip(0), rtol=0, atol=2e-15)


def test_quantile_edges_split_the_training_times_evenly():
    spec = FlowSpec(grid_mean=-0.4, grid_std=0.8)
    generator = torch.Generator().manual_seed(0)
    times = torch.sigmoid(-0.4 + 0.8 * torch.randn(200_000, dtype=torch.float64, generator=generator))
    shares = torch.histogram(times, time_edges(8, spec)).hist / len(times)
    # Six standard deviations of a binomial share of 1/8.
    torch.testing.assert_close(shares, torch.full_like(shares, 1 / 8), rtol=0, atol=6 * (7 / 64 / 200_000) ** 0.5)


@pytest.mark.parametrize("num_steps", [1, 3, 10])
def test_shift_one_is_the_uniform_grid(num_steps):
    shifted = time_edges(num_steps, FlowSpec(grid="shifted", grid_shift=1.0))
    torch.testing.assert_close(shifted, time_edges(num_steps, FlowSpec(grid="uniform")), rtol=1e-15, atol=0)


@given(num_steps=STEPS, first=st.floats(0.2, 5), second=st.floats(0.2, 5))
@settings(max_examples=40, deadline=None)
def test_shifts_compose_by_multiplication(num_steps, first, second):
    once = time_edges(num_steps, FlowSpec(grid="shifted", grid_shift=first))
    sigma = 1 - once.numpy()
    twice = 1 - second * sigma / (1 + (second - 1) * sigma)
    product = time_edges(num_steps, FlowSpec(grid="shifted", grid_shift=first * second))
    np.testing.assert_allclose(twice, product.numpy(), rtol=0, atol=2e-14)


def test_a_shift_above_one_spends_more_steps_near_the_source():
    # SD3: shift 3 maps sigma 1/2 to 3/4, that is flow time 1/2 to 1/4.
    assert time_edges(2, FlowSpec(grid="shifted", grid_shift=3.0))[1].item() == pytest.approx(0.25, abs=1e-15)


@pytest.mark.parametrize(
    ("solver", "point", "expected"),
    [
        ("euler", "midpoint", [[0.125], [0.625]]),
        ("euler", "left", [[0.0], [0.25]]),
        ("midpoint", "midpoint", [[0.0, 0.125], [0.25, 0.625]]),
        ("heun", "midpoint", [[0.0, 0.25], [0.25, 1.0]]),
    ],
)
def test_evaluation_times_of_each_solver(solver, point, expected):
    edges = torch.tensor([0.0, 0.25, 1.0])
    times = evaluation_times(edges, FlowSpec(solver=solver, evaluation_point=point))
    assert times.dtype == torch.float32
    assert times.tolist() == expected


@pytest.mark.parametrize("num_steps", [0, -1, 2.0, True, "4", None])
def test_a_number_of_steps_must_be_a_positive_integer(num_steps):
    for call in (
        lambda: time_edges(num_steps, FlowSpec()),
        lambda: edge_error_bound(num_steps, FlowSpec(), torch.float32),
    ):
        with pytest.raises(DeclarationError, match="positive integer; found"):
            call()


def test_grid_dtypes_must_be_floating():
    with pytest.raises(DeclarationError, match=r"floating dtype; found torch\.int64"):
        time_edges(4, FlowSpec(), dtype=torch.int64)
    with pytest.raises(DeclarationError, match=r"floating dtype; found torch\.int64"):
        edge_error_bound(4, FlowSpec(), torch.int64)


@pytest.mark.parametrize("edges", [torch.zeros(1), torch.zeros(2, 2), torch.arange(3), torch.tensor(0.5)])
def test_edges_must_be_a_floating_vector(edges):
    with pytest.raises(DeclarationError, match="edges: expected a floating 1-D tensor"):
        evaluation_times(edges, FlowSpec())


@pytest.mark.parametrize("steps", [1, 2, 4, 28])
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_levels_down_to_a_last_one_and_then_zero(steps, shift):
    """As schedulers write it: `linspace(1, last, K)`, shifted, and 0 behind them."""
    sigmas = np.linspace(1, 0.001, steps)
    expected = 1 - np.append(shift * sigmas / (1 + (shift - 1) * sigmas), 0)
    found = time_edges(steps, FlowSpec(grid="shifted", grid_shift=shift, grid_last_sigma=0.001))
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=4e-16)


@pytest.mark.parametrize("steps", [2, 5, 28])
def test_a_terminal_level_is_where_the_last_evaluation_is(steps):
    spec = FlowSpec(grid="shifted", grid_shift=math.exp(1.2), grid_terminal=0.1)
    found = time_edges(steps, spec)
    plain = time_edges(steps, FlowSpec(grid="shifted", grid_shift=math.exp(1.2)))
    assert float(found[-2]) == pytest.approx(0.9, abs=1e-15)
    assert float(found[-1]) == 1
    np.testing.assert_allclose((found[:-1] / found[-2]).numpy(), (plain[:-1] / plain[-2]).numpy(), atol=1e-15)


def test_one_step_has_nothing_to_stretch():
    assert time_edges(1, FlowSpec(grid="uniform", grid_terminal=0.1)).tolist() == [0, 1]


def test_a_declared_grid_is_what_it_says_and_no_other():
    spec = FlowSpec(grid="declared").at(64, 64, [0, 0.25, 1])
    assert time_edges(2, spec).tolist() == [0, 0.25, 1]
    with pytest.raises(NotInformative, match="declares 2 steps, and 3 are asked about"):
        time_edges(3, spec)


def test_a_grid_that_depends_on_the_size_needs_one():
    spec = FlowSpec(grid="shifted", grid_shift_by_tokens=(256, 0.5, 4096, 1.15))
    with pytest.raises(NotInformative, match="depends on the size"):
        time_edges(4, spec)
