"""Laws that the reference mathematics keeps for all parameters."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fmcheck.flow import combine, combine_formula, integrate, shift_sigma, time_edges
from fmcheck.flow.exact import Sine
from fmcheck.spec import FlowSpec

steps = st.integers(1, 200)
clamps = st.sampled_from([0.0, 1e-6, 1e-3, 0.1])
grids = st.one_of(
    st.builds(
        FlowSpec,
        grid_mean=st.floats(-2, 2),
        grid_std=st.floats(0.2, 3),
        grid_clamp=clamps,
        grid=st.just("logit_normal"),
    ),
    st.builds(FlowSpec, grid=st.just("uniform"), grid_clamp=clamps),
    st.builds(FlowSpec, grid=st.just("shifted"), grid_shift=st.floats(0.05, 20), grid_clamp=clamps),
)
fast = settings(max_examples=60, deadline=None)


@fast
@given(steps, grids)
def test_edges_increase_within_the_path(num_steps, spec):
    edges = time_edges(num_steps, spec)
    assert bool((edges.diff() > 0).all())
    assert 0 <= float(edges[0]) < float(edges[-1]) <= 1


@fast
@given(steps, grids)
def test_steps_telescope_to_the_covered_interval(num_steps, spec):
    edges, one = time_edges(num_steps, spec), time_edges(1, spec)
    assert float(edges.diff().sum()) == pytest.approx(float(one[1] - one[0]), abs=1e-13)
    if spec.grid_clamp == 0:
        assert (float(edges[0]), float(edges[-1])) == (0.0, 1.0)


@fast
@given(steps, grids)
def test_refined_grids_share_their_edges_bit_for_bit(num_steps, spec):
    assert torch.equal(time_edges(2 * num_steps, spec)[::2], time_edges(num_steps, spec))


@fast
@given(steps, st.floats(-2, 2), st.floats(0.2, 3), clamps)
def test_quantiles_are_mirrored_with_their_mean(num_steps, mean, std, clamp):
    """`t -> 1 - t` mirrors the logit-normal law of mean `m` to that of mean `-m`."""
    spec = FlowSpec(grid_mean=mean, grid_std=std, grid_clamp=clamp)
    mirrored = 1 - time_edges(num_steps, replace(spec, grid_mean=-mean)).flip(0)
    torch.testing.assert_close(time_edges(num_steps, spec), mirrored, rtol=0, atol=2**-52)


@fast
@given(steps, st.floats(0.1, 10), st.floats(0.1, 10))
def test_shifts_compose_by_multiplication(num_steps, first, second):
    """A shift by `a` after one by `b` is that by `a b`, and `1 / a` takes `a` back."""
    sigma = 1 - time_edges(num_steps, FlowSpec(grid="shifted", grid_shift=first))
    both = 1 - time_edges(num_steps, FlowSpec(grid="shifted", grid_shift=first * second))
    torch.testing.assert_close(shift_sigma(sigma, second), both, rtol=0, atol=1e-15)
    uniform = 1 - time_edges(num_steps, FlowSpec(grid="uniform"))
    torch.testing.assert_close(shift_sigma(sigma, 1 / first), uniform, rtol=0, atol=1e-15)


velocities = st.lists(st.floats(-100, 100, width=32), min_size=6, max_size=6)


@fast
@given(velocities, velocities, st.floats(-20, 20), st.floats(-20, 20), st.floats(0, 1))
def test_guidance_is_affine_in_its_weight_and_the_conventions_agree(cond, uncond, low, high, share):
    c, u = (torch.tensor(v, dtype=torch.float64).reshape(2, 3) for v in (cond, uncond))
    between = combine(c, u, low + share * (high - low))
    torch.testing.assert_close(
        between, combine(c, u, low) * (1 - share) + combine(c, u, high) * share, rtol=0, atol=1e-11
    )
    other = combine_formula(c, u, 1 + low, FlowSpec(guidance_formula="uncond_plus"))
    torch.testing.assert_close(combine(c, u, low), other, rtol=0, atol=1e-11)


@pytest.mark.parametrize(
    ("solver", "order"),
    [(FlowSpec(evaluation_point="left"), 1), (FlowSpec(solver="midpoint"), 2), (FlowSpec(solver="heun"), 2)],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_forward_then_backward_returns_to_the_start_in_the_order_of_the_method(solver, order, dtype):
    field, x = Sine(), torch.linspace(-2, 2, 9, dtype=dtype)[None]
    flags, away = torch.zeros(1, dtype=torch.bool), []
    for num_steps in (16, 32):
        edges = torch.linspace(0, 1, num_steps + 1, dtype=dtype)
        there = integrate(lambda x, t: field.velocity(x, t, flags), x, edges, solver)
        back = integrate(lambda x, t: field.velocity(x, t, flags), there, edges.flip(0), solver)
        away.append(float((back - x).abs().max()))
        assert back.dtype == dtype
    # The returned error of a symmetric pair of steps is of at least the method's own order.
    assert np.log2(away[0] / away[1]) > order - 0.3
