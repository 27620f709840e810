"""The closed-form flows, against scipy's integrator and quadrature."""

import numpy as np
import pytest
import torch
from scipy.integrate import quad, solve_ivp
from scipy.stats import norm

from fmcheck.errors import DeclarationError
from fmcheck.flow import (
    GaussianFlow,
    heun,
    linear_field,
    linear_solution,
    logistic_field,
    logistic_solution,
)

FLOWS = [
    GaussianFlow(mean0=0.0, std0=1.0, mean1=2.0, std1=0.5),
    GaussianFlow(mean0=-1.0, std0=0.7, mean1=0.3, std1=1.8, sigma_min=0.1),
]
SPANS = [(0.0, 1.0), (0.2, 0.7), (0.9, 0.1)]


def scalar(value):
    return torch.tensor(value, dtype=torch.float64)


def by_scipy(field, x, start, end):
    """The flow of a torch field by an eighth-order method."""

    def right(t, y):
        return field(torch.from_numpy(y), scalar(t)).numpy()

    return solve_ivp(right, (start, end), x.numpy(), method="DOP853", rtol=1e-12, atol=1e-13).y[:, -1]


@pytest.mark.parametrize(("start", "end"), SPANS)
def test_logistic_solution(start, end):
    x = torch.tensor([0.0, 0.05, 0.4, 0.8, 1.0], dtype=torch.float64)
    found = logistic_solution(x, scalar(start), scalar(end))
    np.testing.assert_allclose(found.numpy(), by_scipy(logistic_field, x, start, end), rtol=0, atol=1e-10)


@pytest.mark.parametrize(("start", "end"), SPANS)
def test_linear_solution(start, end):
    x = torch.tensor([-1.0, 0.5, 3.0], dtype=torch.float64)
    found = linear_solution(x, scalar(start), scalar(end), -1.7)
    expected = by_scipy(lambda x, t: linear_field(x, t, -1.7), x, start, end)
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize(("start", "end"), SPANS)
def test_gaussian_flow_map(flow, start, end):
    x = torch.tensor([-2.0, 0.1, 1.5], dtype=torch.float64)
    found = flow.flow(x, scalar(start), scalar(end))
    np.testing.assert_allclose(found.numpy(), by_scipy(flow.velocity, x, start, end), rtol=0, atol=1e-10)


@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize("t", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("x", [-1.0, 0.4, 2.0])
def test_gaussian_velocity_is_the_conditional_expectation(flow, t, x):
    ratio = 1 - flow.sigma_min
    share = 1 - ratio * t

    def density(source):
        data = (x - share * source) / t
        return norm.pdf(source, flow.mean0, flow.std0) * norm.pdf(data, flow.mean1, flow.std1)

    def weighted(source):
        return ((x - share * source) / t - ratio * source) * density(source)

    limits = (flow.mean0 - 12 * flow.std0, flow.mean0 + 12 * flow.std0)
    expected = quad(weighted, *limits, limit=200)[0] / quad(density, *limits, limit=200)[0]
    found = flow.velocity(scalar([x]), scalar(t)).item()
    assert found == pytest.approx(expected, rel=1e-7, abs=1e-7)


@pytest.mark.parametrize("flow", FLOWS)
def test_gaussian_moments_are_those_of_the_path(flow):
    t = torch.linspace(0, 1, 5, dtype=torch.float64)
    share = 1 - (1 - flow.sigma_min) * t
    torch.testing.assert_close(flow.mean(t), share * flow.mean0 + t * flow.mean1)
    torch.testing.assert_close(flow.std(t) ** 2, (share * flow.std0) ** 2 + (t * flow.std1) ** 2)
    assert flow.mean(scalar(0.0)).item() == flow.mean0
    assert flow.std(scalar(0.0)).item() == flow.std0


def test_the_gaussian_flow_carries_source_quantiles_to_data_quantiles():
    flow, levels = FLOWS[0], np.array([0.01, 0.3, 0.5, 0.99])
    source = torch.from_numpy(norm.ppf(levels, flow.mean0, flow.std0))
    carried = flow.flow(source, scalar(0.0), scalar(1.0))
    np.testing.assert_allclose(carried.numpy(), norm.ppf(levels, flow.mean1, flow.std1), rtol=1e-13)


def test_gaussian_trajectories_are_curved_so_that_steps_matter():
    flow, x = FLOWS[0], torch.tensor([1.5], dtype=torch.float64)
    exact = flow.flow(x, scalar(0.0), scalar(1.0))
    coarse, fine = (heun(flow.velocity, x, torch.linspace(0, 1, k + 1, dtype=torch.float64)) for k in (4, 64))
    assert abs(coarse - exact).item() > 1e-3 > abs(fine - exact).item()


@pytest.mark.parametrize(
    "field",
    [logistic_field, FLOWS[1].velocity, lambda x, t: logistic_solution(x, 0 * t, t)],
    ids=["log", "gauss", "sol"],
)
def test_times_run_along_the_batch_also_when_it_equals_the_width(field):
    x = torch.rand(3, 2, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([0.1, 0.5, 0.8], dtype=torch.float64)
    together = field(x, t)
    for row in range(3):
        torch.testing.assert_close(together[row], field(x[row : row + 1], t[row])[0], rtol=1e-14, atol=0)


def test_flows_compose():
    flow, x = FLOWS[1], torch.tensor([0.3, -2.0], dtype=torch.float64)
    halfway = flow.flow(x, scalar(0.1), scalar(0.6))
    torch.testing.assert_close(flow.flow(halfway, scalar(0.6), scalar(0.9)), flow.flow(x, scalar(0.1), scalar(0.9)))


@pytest.mark.parametrize("bad", [{"std0": 0.0}, {"std1": -1.0}, {"std0": float("nan")}, {"sigma_min": 1.0}])
def test_bad_parameters_are_refused(bad):
    with pytest.raises(DeclarationError, match=f"GaussianFlow.{next(iter(bad))}: expected"):
        GaussianFlow(**bad)
