"""The solvers: orders of convergence, evaluation times, exact cases, and backward integration."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from fmcheck.errors import DeclarationError
from fmcheck.flow import (
    euler,
    evaluation_times,
    heun,
    integrate,
    midpoint,
    time_edges,
)
from fmcheck.spec import FlowSpec

ZERO, ONE = torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64)
START = torch.tensor([[0.05, 0.2], [0.4, 0.7]], dtype=torch.float64)
STEPS = [8, 16, 32, 64, 128]
SOLVERS = [
    FlowSpec(solver="euler", evaluation_point="left"),
    FlowSpec(solver="euler", evaluation_point="midpoint"),
    FlowSpec(solver="midpoint"),
    FlowSpec(solver="heun"),
]


def uniform(num_steps):
    return torch.linspace(0, 1, num_steps + 1, dtype=torch.float64)


def logistic_field(x, t):
    """`(2 + 3 t) x (1 - x)`, nonlinear in time and state: it adds the integral of `2 + 3 t` to `log(x / (1 - x))`."""
    return (2 + 3 * t) * x * (1 - x)


def logistic_solution(x, start, end):
    return x / (x + (1 - x) * torch.exp(-(end - start) * (2 + 1.5 * (start + end))))


def order(method):
    """Slope of log error over log step on the logistic field."""
    exact = logistic_solution(START, ZERO, ONE)
    errors = [(method(uniform(num_steps)) - exact).abs().max().item() for num_steps in STEPS]
    return np.polyfit(np.log([1 / num_steps for num_steps in STEPS]), np.log(errors), 1)[0]


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        (lambda edges: euler(logistic_field, START, edges), 1),
        (lambda edges: euler(logistic_field, START, edges, "midpoint"), 1),
        (lambda edges: midpoint(logistic_field, START, edges), 2),
        (lambda edges: heun(logistic_field, START, edges), 2),
    ],
    ids=["euler left", "euler midpoint", "midpoint", "heun"],
)
def test_order_of_convergence(method, expected):
    assert order(method) == pytest.approx(expected, abs=0.1)


def test_the_order_notices_a_stale_time_in_the_second_stage():
    def stale(edges):
        x = START
        for start, end in pairwise(edges):
            k1 = logistic_field(x, start)
            x = x + (end - start) * (k1 + logistic_field(x + (end - start) * k1, start)) / 2
        return x

    assert order(stale) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("spec", SOLVERS, ids=lambda spec: f"{spec.solver} {spec.evaluation_point}")
def test_forward_and_backward_return_within_the_order(spec):
    returned = []
    for num_steps in (64, 128):
        edges = uniform(num_steps)
        there = integrate(logistic_field, START, edges, spec)
        returned.append((integrate(logistic_field, there, edges.flip(0), spec) - START).abs().max().item())
    expected = 2 if spec.stages == 2 else 1
    assert returned[1] < 0.02
    # Returning may cancel errors of even order, so it is at least as good as the order, never worse.
    assert math.log2(returned[0] / returned[1]) > expected - 0.1


@pytest.mark.parametrize("spec", SOLVERS, ids=lambda spec: f"{spec.solver} {spec.evaluation_point}")
def test_the_field_is_evaluated_at_the_declared_times_in_order(spec):
    edges, seen = time_edges(5, spec), []

    def watched(x, t):
        assert t.dim() == 0
        seen.append(t.item())
        return logistic_field(x, t)

    integrate(watched, START, edges, spec)
    assert seen == evaluation_times(edges, spec).flatten().tolist()


@pytest.mark.parametrize(
    ("spec", "factor"),
    [
        (SOLVERS[0], 1 + 0.25),
        (SOLVERS[1], 1 + 0.25),
        (SOLVERS[2], 1 + 0.25 + 0.03125),
        (SOLVERS[3], 1 + 0.25 + 0.03125),
    ],
    ids=lambda value: getattr(value, "solver", ""),
)
def test_one_step_on_the_linear_field_is_the_truncated_exponential(spec, factor):
    # rate 0.5 over a step of 0.5: all numbers are exact in binary.
    edges = torch.tensor([0.0, 0.5], dtype=torch.float64)
    x = torch.ones(2, 3, dtype=torch.float64)
    assert torch.equal(integrate(lambda x, t: 0.5 * x, x, edges, spec), factor * x)


def test_heun_is_the_trapezoid_and_midpoint_the_midpoint_rule_for_a_field_of_time_alone():
    edges, x = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)

    def square(x, t):
        return (t**2).expand_as(x)

    assert heun(square, x, edges).item() == 0.25 * (0 + 0.25) + 0.25 * (0.25 + 1)
    assert midpoint(square, x, edges).item() == 0.5 * 0.0625 + 0.5 * 0.5625
    assert euler(square, x, edges, "midpoint").item() == 0.5 * 0.0625 + 0.5 * 0.5625
    assert euler(square, x, edges).item() == 0.5 * 0.25


@pytest.mark.parametrize(("method", "expected"), [(euler, 1), (midpoint, 2), (heun, 2)])
def test_halving_every_step_of_an_uneven_grid_shows_the_order(method, expected):
    edges, exact, errors = time_edges(8, FlowSpec()), logistic_solution(START, ZERO, ONE), []
    for _ in range(5):
        halves = torch.stack((edges[:-1], (edges[:-1] + edges[1:]) / 2), dim=1).flatten()
        edges = torch.cat((halves, edges[-1:]))
        errors.append((method(logistic_field, START, edges) - exact).abs().max().item())
    assert math.log2(errors[-2] / errors[-1]) == pytest.approx(expected, abs=0.1)


def test_doubling_the_steps_of_an_unclamped_logit_normal_grid_hides_the_order():
    # Its outermost steps shrink like exp(-std sqrt(2 log K)) and not like 1 / K, and dominate the error.
    edges, exact = [time_edges(num_steps, FlowSpec()) for num_steps in STEPS], logistic_solution(START, ZERO, ONE)
    errors = [(heun(logistic_field, START, grid) - exact).abs().max().item() for grid in edges]
    slope = np.polyfit(np.log([1 / num_steps for num_steps in STEPS]), np.log(errors), 1)[0]
    assert slope < 1.7
    assert edges[-1].diff().max() > 8 / 128


@pytest.mark.parametrize("spec", SOLVERS, ids=lambda spec: f"{spec.solver} {spec.evaluation_point}")
def test_the_state_keeps_its_dtype_and_the_input_its_values(spec):
    x = START.float()
    before = x.clone()
    assert integrate(logistic_field, x, uniform(4), spec).dtype == torch.float32
    assert torch.equal(x, before)


@pytest.mark.parametrize("method", [euler, midpoint, heun])
def test_bad_edges_are_refused(method):
    with pytest.raises(DeclarationError, match="at least two entries"):
        method(logistic_field, START, torch.zeros(1))


def test_an_unknown_evaluation_point_is_refused():
    with pytest.raises(DeclarationError, match="left or midpoint; found 'right'"):
        euler(logistic_field, START, uniform(2), "right")


# Nodes, inner coefficients and weights of each method, from Butcher's tables.
TABLEAUS = {
    "left": ([0.0], [[]], [1.0]),
    "midpoint": ([0.0, 0.5], [[], [0.5]], [0.0, 1.0]),
    "heun": ([0.0, 1.0], [[], [1.0]], [0.5, 0.5]),
}


def by_tableau(nodes, inner, weights, x, edges):
    """Any explicit Runge-Kutta method, in NumPy's extended precision."""
    x, edges = np.asarray(x, dtype=np.longdouble), np.asarray(edges, dtype=np.longdouble)
    for start, end in pairwise(edges):
        slopes = []
        for node, row in zip(nodes, inner, strict=True):
            stage = x + (end - start) * sum((a * k for a, k in zip(row, slopes, strict=True)), np.longdouble(0))
            slopes.append((2 + 3 * (start + node * (end - start))) * stage * (1 - stage))
        x = x + (end - start) * sum(b * k for b, k in zip(weights, slopes, strict=True))
    return x


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("name", "method"), [("left", euler), ("midpoint", midpoint), ("heun", heun)])
def test_solvers_agree_with_their_tables_in_extended_precision(name, method, dtype):
    for num_steps in (1, 2, 7, 50):
        edges, x = time_edges(num_steps, FlowSpec(), dtype=dtype), START.to(dtype)
        expected = by_tableau(*TABLEAUS[name], x.numpy(), edges.numpy())
        found = method(logistic_field, x, edges)
        assert found.dtype == dtype
        # A dozen roundings a step of numbers below 4, grown by at most exp(integral of 2 + 3 t) = 33 until the end.
        allowed = 12 * 4 * 33 * num_steps * torch.finfo(dtype).eps / 2
        assert np.abs(found.numpy() - expected).max() <= allowed


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_euler_at_midpoints_is_a_loop_over_numbers(dtype):
    edges, x = time_edges(7, FlowSpec(), dtype=dtype), START.to(dtype)
    state = np.asarray(x, dtype=np.longdouble)
    for start, end in pairwise(np.asarray(edges, dtype=np.longdouble)):
        state = state + (end - start) * (2 + 3 * (start + end) / 2) * state * (1 - state)
    found = euler(logistic_field, x, edges, "midpoint")
    assert np.abs(found.numpy() - state).max() <= 12 * 4 * 33 * 7 * torch.finfo(dtype).eps / 2
