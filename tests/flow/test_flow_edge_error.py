"""The derived error bound of the grid: it holds for the usual ways to compute it, and still tells grids apart."""

import mpmath
import numpy as np
import pytest
import torch
from scipy.special import expit, ndtri

from fmcheck.flow import edge_error_bound, time_edges
from fmcheck.spec import FlowSpec

LAWS = [(0.0, 1.0), (0.5, 0.7), (-1.3, 1.6), (0.0, 3.0), (1.0, 0.2)]
DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


def with_torch_icdf(num_steps, spec, dtype):
    q = torch.linspace(spec.grid_clamp, 1 - spec.grid_clamp, num_steps + 1, dtype=dtype)
    mean, std = torch.tensor(spec.grid_mean, dtype=dtype), torch.tensor(spec.grid_std, dtype=dtype)
    return torch.sigmoid(torch.distributions.Normal(mean, std, validate_args=False).icdf(q))


def with_integer_fractions(num_steps, spec, dtype):
    q = torch.arange(num_steps + 1, dtype=dtype) / num_steps
    q = spec.grid_clamp + (1 - 2 * spec.grid_clamp) * q
    return torch.sigmoid(spec.grid_mean + spec.grid_std * torch.erfinv(2 * q - 1) * 2**0.5)


def with_a_table_cast_down(num_steps, spec, dtype):
    q = np.linspace(spec.grid_clamp, 1 - spec.grid_clamp, num_steps + 1)
    return torch.from_numpy(expit(spec.grid_mean + spec.grid_std * ndtri(q))).to(dtype)


def with_numpy_float32(num_steps, spec, dtype):
    q = np.linspace(spec.grid_clamp, 1 - spec.grid_clamp, num_steps + 1, dtype=np.float32)
    z = np.float32(spec.grid_mean) + np.float32(spec.grid_std) * ndtri(q)
    return torch.from_numpy(1 / (1 + np.exp(-z)))


WAYS = [with_torch_icdf, with_integer_fractions, with_a_table_cast_down]


def distance(edges, exact):
    """`|edges - exact|`, subtracted at 50 digits."""
    with mpmath.workdps(50):
        return np.array([float(abs(mpmath.mpf(float(edge)) - true)) for edge, true in zip(edges, exact, strict=True)])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("clamp", [0.0, 1e-3, 1e-6, 1e-8])
@pytest.mark.parametrize(("mean", "std"), LAWS)
def test_the_bound_holds_for_the_usual_ways(exact_edges, dtype, clamp, mean, std):
    spec = FlowSpec(grid_mean=mean, grid_std=std, grid_clamp=clamp)
    ways = [*WAYS, with_numpy_float32] if dtype == torch.float32 else WAYS
    for num_steps in (1, 2, 3, 8, 28, 64):
        exact, bound = exact_edges(num_steps, spec), edge_error_bound(num_steps, spec, dtype).numpy()
        for way in ways:
            error = distance(way(num_steps, spec, dtype), exact)
            assert (error <= bound).all(), f"{way.__name__}, {num_steps} steps: {np.max(error / (bound + 1e-300))}"


@pytest.mark.parametrize("num_steps", [250, 1000])
def test_the_bound_holds_for_long_grids(exact_edges, num_steps):
    exact, bound = exact_edges(num_steps, FlowSpec()), edge_error_bound(num_steps, FlowSpec(), torch.float32).numpy()
    for way in WAYS:
        assert (distance(way(num_steps, FlowSpec(), torch.float32), exact) <= bound).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize(("mean", "std"), LAWS)
def test_the_bound_is_not_loose(exact_edges, dtype, mean, std):
    spec, worst = FlowSpec(grid_mean=mean, grid_std=std), 0.0
    for num_steps in range(2, 65):
        bound = edge_error_bound(num_steps, spec, dtype).numpy()[1:-1]
        error = distance(with_torch_icdf(num_steps, spec, dtype), exact_edges(num_steps, spec))[1:-1]
        worst = max(worst, float(np.max(error / bound)))
    assert 1 / 20 < worst <= 1


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("end", [0, -1], ids=["lower tail", "upper tail"])
def test_the_bound_holds_and_is_not_loose_in_the_tails(exact_edges, dtype, end):
    # Many clamps, because where `1 - clamp` and `2 q - 1` happen to round decides the error of one.
    worst = 0.0
    for clamp in np.linspace(2e-6, 9e-6, 200):
        spec = FlowSpec(grid_clamp=float(clamp))
        error = distance(with_torch_icdf(1, spec, dtype), exact_edges(1, spec))[end]
        worst = max(worst, error / edge_error_bound(1, spec, dtype)[end].item())
    assert 1 / 50 < worst <= 1


@pytest.mark.parametrize("num_steps", [2, 3, 8, 28, 64])
@pytest.mark.parametrize("other", [{"grid": "uniform"}, {"grid_std": 1.02}, {"grid_mean": 0.01}, {"grid_clamp": 1e-4}])
def test_the_bound_tells_neighbouring_grids_apart(num_steps, other):
    difference = (time_edges(num_steps, FlowSpec()) - time_edges(num_steps, FlowSpec(**other))).abs().max()
    allowed = edge_error_bound(num_steps, FlowSpec(), torch.float32).max()
    if num_steps == 2 and other in ({"grid": "uniform"}, {"grid_std": 1.02}):
        assert difference < allowed  # edges 0, 1/2, 1 in all of them: nothing to tell apart
    else:
        assert difference > 100 * allowed


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("spec", [FlowSpec(grid="uniform"), FlowSpec(grid="uniform", grid_clamp=1e-3)])
def test_the_bound_holds_for_uniform_grids_in_t_and_in_sigma(exact_edges, dtype, spec):
    low, high = spec.grid_clamp, 1 - spec.grid_clamp
    for num_steps in (1, 3, 28, 64, 250):
        exact, bound = exact_edges(num_steps, spec), edge_error_bound(num_steps, spec, dtype).numpy()
        for edges in (
            torch.linspace(low, high, num_steps + 1, dtype=dtype),
            1 - torch.linspace(high, low, num_steps + 1, dtype=dtype),
            torch.from_numpy(np.linspace(low, high, num_steps + 1)).to(dtype),
        ):
            assert (distance(edges, exact) <= bound).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shift", [0.1, 0.5, 1.0, 3.0, 12.0])
@pytest.mark.parametrize("clamp", [0.0, 1e-3])
def test_the_bound_holds_for_shifted_grids_in_both_forms(exact_edges, dtype, shift, clamp):
    spec = FlowSpec(grid="shifted", grid_shift=shift, grid_clamp=clamp)
    factor = torch.tensor(shift, dtype=dtype)
    worst = 0.0
    for num_steps in (1, 3, 28, 64):
        sigma = torch.linspace(1 - clamp, clamp, num_steps + 1, dtype=dtype)
        exact, bound = exact_edges(num_steps, spec), edge_error_bound(num_steps, spec, dtype).numpy()
        for shifted in (
            factor * sigma / (1 + (factor - 1) * sigma),
            shift * sigma / (1 + (shift - 1) * sigma),
            factor / (factor + (1 / sigma - 1)),
        ):
            worst = max(worst, float(np.max(distance(1 - shifted, exact) / bound)))
    assert 1 / 100 < worst <= 1


def test_unclamped_ends_allow_no_more_than_the_rounding_of_one():
    bound = edge_error_bound(8, FlowSpec(), torch.float32)
    assert bound[0].item() == 0.0
    assert bound[-1].item() == pytest.approx(2 * torch.finfo(torch.float32).eps)


def test_a_clamp_below_the_resolution_allows_the_end_itself():
    # In float32 `1 - 1e-8` is 1, so the last edge is 1 instead of 0.9964.
    spec = FlowSpec(grid_clamp=1e-8)
    last = time_edges(4, spec)[-1].item()
    assert with_torch_icdf(4, spec, torch.float32)[-1].item() == 1.0
    assert 1.0 - last <= edge_error_bound(4, spec, torch.float32)[-1].item() < 2 * (1.0 - last)


def test_the_bound_grows_towards_the_tails():
    bound = edge_error_bound(1000, FlowSpec(), torch.float32)
    assert bound[999] > 5 * bound[500]
    assert bound[1] > bound[500] / 10
