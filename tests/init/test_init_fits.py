"""The fits behind `fmcheck init`, on inputs whose answers are known in closed form."""

import itertools
import math

import pytest
import torch

from fmcheck.flow import time_edges
from fmcheck.init.fit_grid import fit_grid
from fmcheck.init.fit_guidance import combination, least_squares, move_fit
from fmcheck.init.fit_latent import fit_affine
from fmcheck.init.fit_rescale import rescaled_by
from fmcheck.init.fit_time import fit_time
from fmcheck.init.roles import Evaluation
from fmcheck.spec import FlowSpec

MAPS = {"t": (0, 1), "sigma": (1, -1), "timestep": (1000, -1000), "log_snr": (4, -8)}
GRIDS = [
    {"grid": "uniform"},
    {"grid": "logit_normal", "grid_mean": 0.5, "grid_std": 1.5},
    {"grid": "shifted", "grid_shift": 3.0},
    {"grid": "shifted", "grid_shift": 3.0, "grid_last_sigma": 0.001},
    {"grid": "shifted", "grid_shift": 2.5, "grid_terminal": 0.02},
]


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def evaluation(seed: int = 1) -> Evaluation:
    x, a, b = (noise(2, 4, 3, 5, seed=seed + i) for i in range(3))
    return Evaluation(x, 0.5, a, b, "doubled", (None, None))


@pytest.mark.parametrize("fields", GRIDS, ids=lambda f: "-".join(map(str, f.values())))
def test_a_grid_is_found_again_from_its_edges(fields):
    observed = {(k, 24): time_edges(k, FlowSpec(**fields)).tolist()[:-1] for k in (6, 4)}
    found = fit_grid(observed)
    assert found is not None
    for steps in (3, 9):
        assert time_edges(steps, FlowSpec(**found.fields)).tolist() == pytest.approx(
            time_edges(steps, FlowSpec(**fields)).tolist(), abs=1e-3
        )


def test_a_shift_that_follows_the_size_is_linear_in_the_logarithm():
    law = {16: 0.5, 64: 0.7}
    observed = {
        (6, n): time_edges(6, FlowSpec(grid="shifted", grid_shift=math.exp(mu))).tolist()[:-1] for n, mu in law.items()
    }
    found = fit_grid(observed)
    assert found is not None
    assert found.fields["grid_shift_by_tokens"] == pytest.approx((16, 0.5, 64, 0.7))


def test_edges_of_no_known_grid_are_not_given_one():
    assert fit_grid({(6, 24): [1 - (1 - k / 6) ** 1.5 for k in range(6)]}) is None


@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("point", ["left", "midpoint"])
@pytest.mark.parametrize("sign", [1, -1])
def test_time_map_and_evaluation_point_follow_from_steps_and_told_times(name, point, sign):
    edges = time_edges(5, FlowSpec(grid="shifted", grid_shift=2.0)).tolist()
    offset, slope = MAPS[name]
    at = [a if point == "left" else (a + b) / 2 for a, b in itertools.pairwise(edges)]
    sizes = [sign * (b - a) for a, b in itertools.pairwise(edges)][:-1]
    found = fit_time([offset + slope * t for t in at], sizes, [0.0] * 4, 1)
    assert found is not None
    assert (found.name, found.point) == (name, point)
    assert found.kind == ("velocity" if sign > 0 else "reverse_velocity")


def test_a_time_map_without_a_name_is_fitted():
    edges = [k / 5 for k in range(6)]
    found = fit_time([7 - 3 * t for t in edges[:-1]], [0.2] * 4, [0.0] * 4, 1)
    assert found is not None
    assert found.name is None
    assert (found.offset, found.slope) == pytest.approx((7, -3))


@pytest.mark.parametrize("solver", ["midpoint", "heun"])
def test_the_first_stage_tells_methods_of_two_stages_apart(solver):
    sizes = [0.1 if solver == "midpoint" else 0.2] * 5
    found = fit_time([k / 5 for k in range(5)], sizes, [0.0] * 5, 2)
    assert found is not None
    assert found.solver == solver


def test_a_prediction_of_the_data_shows_in_the_coefficient_of_the_state():
    times = [k / 5 for k in range(5)]
    sizes = [0.2 / (1 - t) for t in times[:-1]]
    found = fit_time(times, sizes, [-s for s in sizes], 1)
    assert found is not None
    assert (found.kind, found.name, found.point) == ("x1", "t", "left")


@pytest.mark.parametrize("formula", ["uncond_plus", "cond_plus"])
@pytest.mark.parametrize("cond_first", [True, False])
def test_formula_and_order_follow_from_the_shares(formula, cond_first):
    shift = 1 if formula == "cond_plus" else 0
    shares = {s: (s + shift if cond_first else 1 - s - shift) for s in (2.5, 4.0)}
    found = combination({**shares, 1 - shift: None})
    assert (found.formula, found.cond_first) == (formula, cond_first)


def test_shares_of_no_formula_are_not_given_one():
    assert combination({2.5: 1.7, 4.0: 2.1}).formula is None


def test_a_change_is_split_into_branches():
    e = evaluation()
    fit = move_fit(0.25 * (3.5 * e.first - 2.5 * e.second), e)
    assert (fit.share, fit.size, fit.state) == pytest.approx((3.5, 0.25, 0))


def test_rows_with_a_factor_of_their_own_are_seen():
    e = evaluation()
    mixed = 3.5 * e.first - 2.5 * e.second
    factor = e.first.flatten(1).norm(dim=1) / mixed.flatten(1).norm(dim=1)
    fit = move_fit(0.25 * factor[:, None, None, None] * mixed, e)
    assert fit.share == pytest.approx(3.5)
    assert rescaled_by([f / 0.25 for f in fit.factors], e.first, mixed) == {"guidance_norm": "row"}


def test_least_squares_says_what_it_leaves():
    a, b = noise(40), noise(40, seed=1)
    assert least_squares(2 * a, [a]).residual < 1e-12
    assert least_squares(b, [a]).residual > 0.5


def test_scale_and_shift_of_a_latent_are_short_numbers():
    x = noise(2, 3, 4, 4).float().double()
    fit = fit_affine(x / 0.41 + 0.15, x)
    assert (fit.scale, fit.shift) == (0.41, 0.15)
    std, mean = torch.tensor([1.3, 0.8, 2.0]), torch.tensor([-0.2, 0.0, 0.35])
    fit = fit_affine(x * std.double()[:, None, None] + mean.double()[:, None, None], x)
    assert fit.scale == pytest.approx((1 / 1.3, 1.25, 0.5), rel=1e-5)
    assert fit.shift == pytest.approx((-0.2, 0.0, 0.35), abs=1e-5)
