"""The exact fields: their flows against SciPy's integrator, their slopes against Jacobians, and what they mean."""

from itertools import pairwise

import mpmath
import numpy as np
import pytest
import torch
from scipy.integrate import quad, solve_ivp
from scipy.stats import norm

from fmcheck.errors import DeclarationError
from fmcheck.flow import euler, heun, midpoint
from fmcheck.flow.exact import Constant, Gaussian, Linear, Mixture, Polynomial, Rotation, Sine, Transport

FLOWS = [
    Gaussian(mean0=0.0, std0=1.0, mean1=2.0, std1=0.5),
    Gaussian(mean0=-1.0, std0=0.7, mean1=0.3, std1=1.8, sigma_min=0.1),
]
MIXTURES = [Mixture(), Mixture(means=(-2.0, 0.1, 1.5), weights=(1.0, 2.0, 1.0), std=0.3, sigma_min=0.05)]
FIELDS = [Constant(), Polynomial(), Linear(), Rotation(), Sine(), *FLOWS, Transport(), *MIXTURES]
SPANS = [(0.0, 1.0), (0.2, 0.7), (0.9, 0.1)]
SHAPES = [(2, 3, 2, 2), (2, 4, 3), (2, 1, 5)]


def scalar(value):
    return torch.tensor(value, dtype=torch.float64)


def states(shape=SHAPES[0]):
    """Random states, with a few that are large, or at the places where a half angle has no tangent."""
    x = 2 * torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    x.view(-1)[:4] = torch.tensor([8.0, -8.0, np.pi, 3 * np.pi - 1e-9])
    return x


def rows(x, uncond=False):
    return torch.full((len(x),), uncond)


def by_scipy(field, x, start, end, weight=0.0):
    """The guided flow of a field by an eighth-order method."""

    def right(t, y):
        state = torch.from_numpy(y).reshape(x.shape)
        branches = (field.velocity(state, scalar(t), rows(x, uncond)) for uncond in (False, True))
        cond, uncond = branches
        return ((1 + weight) * cond - weight * uncond).numpy().ravel()

    solved = solve_ivp(right, (start, end), x.numpy().ravel(), method="DOP853", rtol=1e-12, atol=1e-13)
    return solved.y[:, -1].reshape(x.shape)


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
@pytest.mark.parametrize("weight", [0.0, 2.5])
def test_the_flow_is_that_of_the_guided_velocity(field, weight):
    x = states()
    for start, end in SPANS:
        found = field.flow(x, scalar(start), scalar(end), weight)
        np.testing.assert_allclose(found.numpy(), by_scipy(field, x, start, end, weight), rtol=0, atol=1e-9)


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_slopes_bound_the_derivatives(field, shape):
    x, t, flags = states(shape), scalar(0.4), torch.tensor([False, True])
    jacobian = torch.func.jacrev(lambda state: field.velocity(state, t, flags))(x)
    by_state = jacobian.reshape(x.numel(), -1).abs().sum(1).reshape(shape)
    by_time = torch.func.jacrev(lambda time: field.velocity(x, time, flags))(t).abs()
    found_state, found_time = field.slopes(x, t, flags)
    assert bool((found_state >= by_state - 1e-12).all())
    torch.testing.assert_close(found_time, by_time, rtol=1e-11, atol=1e-12)
    if not isinstance(field, Rotation):
        torch.testing.assert_close(found_state, by_state, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
def test_there_and_back_is_the_start(field):
    x = states()
    there = field.flow(x, scalar(0.1), scalar(0.8), 1.5)
    torch.testing.assert_close(field.flow(there, scalar(0.8), scalar(0.1), 1.5), x, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
def test_flows_compose(field):
    x = states()
    halfway = field.flow(x, scalar(0.1), scalar(0.6), 1.5)
    whole = field.flow(x, scalar(0.1), scalar(0.9), 1.5)
    torch.testing.assert_close(field.flow(halfway, scalar(0.6), scalar(0.9), 1.5), whole, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
def test_times_run_along_the_batch_also_when_it_equals_the_width(field):
    x = torch.rand(3, 2, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    t, flags = torch.tensor([0.1, 0.5, 0.8], dtype=torch.float64), torch.tensor([False, True, False])
    for function in (lambda x, t, f: field.velocity(x, t, f), lambda x, t, f: field.flow(x, 0 * t, t)):
        together = function(x, t, flags)
        for row in range(3):
            alone = function(x[row : row + 1], t[row : row + 1], flags[row : row + 1])
            torch.testing.assert_close(together[row], alone[0], rtol=1e-13, atol=0)


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
def test_the_branches_are_as_declared(field):
    x = states()
    branches = [field.velocity(x, scalar(0.3), rows(x, uncond)) for uncond in (False, True)]
    assert torch.equal(*branches) == field.same_for_both


def test_names_are_unique_and_every_field_says_what_it_is_blind_to():
    others = [
        Sine(b=0.5),
        Rotation(rate=2.0),
        Linear(cond=0.3),
        Polynomial(cond=(1.0,), uncond=(0.5,)),
        Constant(size=2.0),
    ]
    assert len({field.name for field in FIELDS + others}) == len(FIELDS + others)
    assert (Sine().name, Sine(b=0.5).name) == ("sine", "sine-b=0.5")
    assert all("blind" in field.separates or isinstance(field, Mixture) for field in FIELDS)


def test_constant_velocities_are_far_from_parallel():
    for shape in [(1, 32, 2, 3), (1, 4, 1, 1), (1, 3, 2, 2), (2, 16, 64)]:
        x = torch.zeros(shape, dtype=torch.float64)
        cond, uncond = (Constant().velocity(x, scalar(0.0), rows(x, flag)).flatten() for flag in (False, True))
        assert abs(float(torch.nn.functional.cosine_similarity(cond, uncond, dim=0))) < 0.8


def test_a_rotation_turns_pairs_of_channels():
    x = torch.tensor([[[[1.0]], [[0.0]], [[5.0]]]], dtype=torch.float64)
    turned = Rotation(rate=np.pi / 2).flow(x, scalar(0.0), scalar(1.0))
    np.testing.assert_allclose(turned.flatten(), [0.0, 1.0, 5.0], atol=1e-15)


def stale_heun(f, x, edges):
    for start, end in pairwise(edges):
        k1 = f(x, start)
        x = x + (end - start) * (k1 + f(x + (end - start) * k1, start)) / 2
    return x


def runge_kutta(f, x, edges):
    """The classical method of order 4."""
    for start, end in pairwise(edges):
        dt, middle = end - start, (start + end) / 2
        k1 = f(x, start)
        k2 = f(x + dt / 2 * k1, middle)
        k3 = f(x + dt / 2 * k2, middle)
        x = x + dt * (k1 + 2 * k2 + 2 * k3 + f(x + dt * k3, end)) / 6
    return x


METHODS = [(euler, 1), (midpoint, 2), (heun, 2), (runge_kutta, 4), (stale_heun, 1)]


@pytest.mark.parametrize(("method", "order"), METHODS)
def test_the_sine_field_separates_methods_and_stale_times(method, order):
    field, x, errors = Sine(), torch.linspace(-3, 3, 11, dtype=torch.float64)[None], []
    for steps in (32, 64, 128):
        edges = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
        end = method(lambda x, t: field.velocity(x, t, rows(x)), x, edges)
        errors.append(float((end - field.flow(x, edges[0], edges[-1])).square().mean().sqrt()))
    slopes = np.log2(np.array(errors[:-1]) / errors[1:])
    assert 2 * slopes[1] - slopes[0] == pytest.approx(order, abs=0.05)


@pytest.mark.parametrize("span", SPANS)
def test_the_sine_flow_is_exact_to_a_few_ulp_also_at_the_ends_of_its_branches(span):
    points = [0.0, 1e-300, 1e-8, 0.3, 3.0, np.pi, np.nextafter(np.pi, 4), 6.28, 2 * np.pi, 9.4, -8.0, 100.0, -12345.678]
    found = Sine().flow(scalar([points]), *map(scalar, span))[0].tolist()
    with mpmath.workdps(50):
        start, end = map(mpmath.mpf, span)
        phase = (end - start) * (1 + end + start)
        for x, y in zip(map(float, points), found, strict=True):
            turns = mpmath.nint(mpmath.mpf(x) / (2 * mpmath.pi)) * 2 * mpmath.pi
            half = (mpmath.mpf(x) - turns) / 2
            exact = turns + 2 * mpmath.atan2(mpmath.sin(half) * mpmath.exp(phase), mpmath.cos(half))
            # The flow spreads points apart by up to exp(2), and with them the rounding of `x - turns`.
            assert abs(y - exact) <= 8 * np.spacing(max(abs(x), abs(y)))


@pytest.mark.parametrize("span", SPANS)
def test_a_mixture_keeps_the_quantiles_of_its_far_tails(span):
    field, points = Mixture(), [-40.0, -8.0, -0.3, 0.5, 8.0, 40.0]
    carried = field.flow(scalar([points]), *map(scalar, span))[0].tolist()

    def tail(x, t):
        """The probability beyond `x`, on the side away from 0."""
        t, side = mpmath.mpf(t), mpmath.sign(x)
        std = mpmath.sqrt((1 - t) ** 2 + (t * mpmath.mpf(field.std)) ** 2)
        beyond = [mpmath.ncdf(side * (t * mpmath.mpf(mean) - x) / std) for mean in field.means]
        return mpmath.fdot(map(mpmath.mpf, field.weights), beyond)

    with mpmath.workdps(50):
        for x, y in zip(points, carried, strict=True):
            start, end = (tail(mpmath.mpf(at), t) for at, t in zip((x, y), span, strict=True))
            # A relative error of `y` by eps is one of the tail by eps times y^2 / std^2.
            assert abs(mpmath.log(end / start)) <= 8 * 2**-53 * (1 + (y / 0.6) ** 2)


@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize("t", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("x", [-1.0, 0.4, 2.0])
def test_gaussian_velocity_is_the_conditional_expectation(flow, t, x):
    expected = conditional_expectation(flow, t, x, lambda data: norm.pdf(data, flow.mean1, flow.std1))
    assert flow.velocity(scalar([x]), scalar(t)).item() == pytest.approx(expected, rel=1e-7, abs=1e-7)


@pytest.mark.parametrize("flow", MIXTURES, ids=lambda flow: flow.name)
@pytest.mark.parametrize("t", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("x", [-1.0, 0.4, 2.0])
def test_mixture_velocity_is_the_conditional_expectation(flow, t, x):
    def density(data):
        return sum(w * norm.pdf(data, m, flow.std) for w, m in zip(flow.weights, flow.means, strict=True))

    found = flow.velocity(scalar([[x]]), scalar(t), torch.tensor([False])).item()
    assert found == pytest.approx(conditional_expectation(flow, t, x, density), rel=1e-6, abs=1e-6)


def conditional_expectation(flow, t, x, density):
    """`E[x1 - r x0 | x_t = x]` by quadrature over the source."""
    ratio = 1 - flow.sigma_min
    share = 1 - ratio * t

    def joint(source):
        return norm.pdf(source, flow.mean0, flow.std0) * density((x - share * source) / t)

    def weighted(source):
        return ((x - share * source) / t - ratio * source) * joint(source)

    limits = (flow.mean0 - 12 * flow.std0, flow.mean0 + 12 * flow.std0)
    settings = {"limit": 400, "points": np.linspace(*limits, 25)[1:-1]}
    return quad(weighted, *limits, **settings)[0] / quad(joint, *limits, **settings)[0]


@pytest.mark.parametrize("flow", FLOWS)
def test_gaussian_moments_are_those_of_the_path(flow):
    t = torch.linspace(0, 1, 5, dtype=torch.float64)
    share = 1 - (1 - flow.sigma_min) * t
    torch.testing.assert_close(flow.mean(t), share * flow.mean0 + t * flow.mean1)
    torch.testing.assert_close(flow.std(t) ** 2, (share * flow.std0) ** 2 + (t * flow.std1) ** 2)
    assert flow.mean(scalar(0.0)).item() == flow.mean0
    assert flow.std(scalar(0.0)).item() == flow.std0


def test_flows_carry_source_quantiles_to_data_quantiles():
    levels = np.array([1e-12, 0.01, 0.3, 0.5, 0.99])
    source = torch.from_numpy(norm.ppf(levels))
    flow = FLOWS[0]
    carried = flow.flow(source, scalar(0.0), scalar(1.0))
    np.testing.assert_allclose(carried.numpy(), norm.ppf(levels, flow.mean1, flow.std1), rtol=1e-13)
    mixture = MIXTURES[0]
    carried = mixture.flow(source[None], scalar(0.0), scalar(1.0))[0].numpy()
    parts = zip(mixture.weights, mixture.means, strict=True)
    reached = sum(w * norm.cdf(carried, m, mixture.std) for w, m in parts) / sum(mixture.weights)
    np.testing.assert_allclose(reached, levels, rtol=1e-11)


def test_the_transport_is_straight_and_gaussian():
    field, x = Transport(scale=0.5, shift=0.7), torch.linspace(-2, 2, 9, dtype=torch.float64)
    np.testing.assert_allclose(field.flow(x, scalar(0.0), scalar(1.0)), 0.7 + 0.5 * x, rtol=1e-15)
    for t in (0.2, 0.6):
        here = field.flow(x, scalar(0.0), scalar(t))
        np.testing.assert_allclose(field.velocity(here, scalar(t), rows(x)), 0.7 - 0.5 * x, rtol=1e-13)


def test_gaussian_trajectories_are_curved_so_that_steps_matter():
    flow, x = FLOWS[0], torch.tensor([1.5], dtype=torch.float64)
    exact = flow.flow(x, scalar(0.0), scalar(1.0))
    coarse, fine = (heun(flow.velocity, x, torch.linspace(0, 1, k + 1, dtype=torch.float64)) for k in (4, 64))
    assert abs(coarse - exact).item() > 1e-3 > abs(fine - exact).item()


@pytest.mark.parametrize("bad", [{"std0": 0.0}, {"std1": -1.0}, {"std0": float("nan")}, {"sigma_min": 1.0}])
def test_bad_parameters_are_refused(bad):
    with pytest.raises(DeclarationError, match=f"Gaussian.{next(iter(bad))}: expected"):
        Gaussian(**bad)


def test_bad_mixtures_and_transports_are_refused():
    with pytest.raises(DeclarationError, match=r"Transport.scale: expected a number above 0; found -1.0"):
        Transport(scale=-1.0)
    for bad in ({"weights": (1.0,)}, {"weights": (1.0, 0.0)}):
        with pytest.raises(DeclarationError, match="Mixture: expected one weight above 0 a mean"):
            Mixture(**bad)
