"""The error budgets: correct loops of every kind stay within them, and the fitted numbers are what went in."""

import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fmcheck.case import Case
from fmcheck.record.grouping import Evaluation
from fmcheck.record.reading import Move
from fmcheck.spec import FlowSpec
from fmcheck.tolerance import (
    SHARE,
    binomial_range,
    coarser,
    fit_bound,
    fit_errors,
    gamma,
    half_digits,
    image_bound,
    ks_critical,
    move_bound,
    range_bound,
    scale_bound,
    told_bound,
    unit_roundoff,
    unscale_bound,
)
from tests.rules.loops import FACTOR, SPEC, Style, but, loop_subject, run_of, verdicts

PICK = st.sampled_from

SPECS = st.builds(
    but,
    solver=PICK(["euler", "midpoint", "heun"]),
    evaluation_point=PICK(["midpoint", "left"]),
    prediction=PICK(["velocity", "reverse_velocity", "x1"]),
    grid=PICK(["logit_normal", "uniform", "shifted"]),
    grid_mean=PICK([0.0, 0.5, -1.0]),
    grid_std=PICK([1.0, 0.5, 1.7]),
    grid_clamp=PICK([0.0, 1e-6, 1e-3]),
    grid_shift=PICK([1.0, 3.0, 0.4]),
    guidance_formula=PICK(["cond_plus", "uncond_plus"]),
    guidance_layout=PICK(["cond_first", "uncond_first", "separate", "separate_uncond_first"]),
    time_argument=PICK(["log_snr", "t", "sigma", "timestep"]),
    sigma_min=PICK([0.0, 1e-5]),
    latent_scale=PICK([1.0, 0.18215, -2.0]),
    latent_shift=PICK([0.0, -3.0, 40.0]),
)
STYLES = st.builds(
    Style,
    formula=PICK(["sum", "cond", "uncond"]),
    combine=PICK([None, "float32"]),
    state=PICK(["float32", "float64"]),
    cast=st.booleans(),
    parts=PICK([0, 1, 2]),
    both=st.booleans(),
    scalar_time=st.booleans(),
    grid=PICK(["float32", "float64"]),
    reciprocal=st.booleans(),
    x_size=PICK([1e-3, 1.0, 1e3]),
    v_size=PICK([1e-3, 1.0, 1e3]),
    fused=st.booleans(),
    decode_parts=PICK([0, 1]),
    sample=st.booleans(),
)
CASES = st.builds(
    lambda batch, **rest: Case(prompts=tuple("p" * (i + 1) for i in range(batch)), **rest),
    batch=PICK([1, 2, 3]),
    height=PICK([FACTOR, 4 * FACTOR]),
    width=PICK([FACTOR, 3 * FACTOR]),
    num_steps=PICK([1, 2, 3, 4, 7, 16]),
    guidance_scale=PICK([0.0, 1.0, -0.5, 0.3, 2.5, 7.5, 30.0]),
    seed=st.integers(0, 10**6),
    dtype=PICK(["float32", "bfloat16", "float64"]),
)


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(spec=SPECS, style=STYLES, case=CASES)
def test_no_correct_loop_exceeds_a_bound(spec: FlowSpec, style: Style, case: Case) -> None:
    run = run_of(loop_subject(spec=spec, style=style, case=case, dtypes=(case.dtype,)))
    assert run.trace.error is None
    for code, verdict in verdicts(run):
        assert not verdict.failures, f"{code}: {verdict.failures[0]}"
        assert verdict.ratio <= 1


def move_of(cond: torch.Tensor, uncond: torch.Tensor | None, dt: float, weight: float, spec: FlowSpec = SPEC) -> Move:
    """A move that was made in float32 by the formula itself."""
    start = torch.linspace(-2, 2, cond.numel()).reshape(cond.shape)
    v = cond if uncond is None else (1 + weight) * cond - weight * uncond
    columns = [None if t is None else t.double() for t in (cond, uncond)]
    part = Evaluation(
        [0],
        torch.full((len(cond),), 0.5),
        start,
        None if uncond is None else start,
        *columns,
        torch.float32,
        torch.float32,
    )
    return Move(0, 0, start, start + dt * v, (part,), 1.0, True, False, spec, weight, start.double().abs())


SHAPE = (2, 3, 4, 5)


def random(seed: int) -> torch.Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("weight", [0.0, -0.5, 0.3, 2.5, 30.0])
@pytest.mark.parametrize("dt", [1e-3, 0.25, 1.0])
def test_the_fit_gives_back_what_went_in(weight: float, dt: float) -> None:
    move = move_of(random(1), random(2), dt, weight)
    errors, fitted = fit_errors(move), move.coefficients
    assert abs(fitted.dt - dt) <= errors.dt + unit_roundoff(torch.float32) * dt
    assert abs(fitted.weight - weight) <= errors.weight(fitted.dt, weight)
    assert bool((move.leftover <= fit_bound(move)).all())
    # Tight enough to see a thousandth of a step where velocity and state are of one size.
    if dt >= 0.25 and weight <= 2.5:
        assert errors.dt < 1e-3 * dt


@pytest.mark.parametrize("tilt", [1e-1, 1e-3, 1e-5, 1e-7])
def test_nearly_parallel_velocities_leave_the_step_readable_and_the_weight_not(tilt: float) -> None:
    cond = random(1)
    move = move_of(cond, cond + tilt * random(2), 0.25, 2.5)
    errors, fitted = fit_errors(move), move.coefficients
    assert errors.weight(fitted.dt, 2.5) >= abs(fitted.weight - 2.5)
    assert (errors.weight(fitted.dt, 2.5) > 1) == (tilt < 1e-6)
    assert bool((move.leftover <= fit_bound(move)).all())
    assert float(fit_bound(move).max()) < 1e-2


def test_equal_and_zero_velocities() -> None:
    equal = move_of(random(1), random(1), 0.25, 30.0)
    assert equal.alike
    assert abs(equal.coefficients.dt - 0.25) <= fit_errors(equal).dt < 1e-3
    still = move_of(torch.zeros(SHAPE), torch.zeros(SHAPE), 0.25, 1.0)
    assert math.isinf(fit_errors(still).dt)


def test_an_average_that_cancels_keeps_the_rounding_of_its_terms() -> None:
    move = move_of(random(1), None, 0.25, 0.0)
    other = Evaluation([1], torch.ones(2), move.start, None, -move.cond, None, torch.float32, torch.float32)
    both = Move(
        0, 1, move.start, move.start, (*move.parts, other), 1.0, True, False, FlowSpec(), 0.0, move.start.double().abs()
    )
    assert not bool(both.cond.any())
    of_state = move_bound(both, 0.0, 0.0)
    assert bool((move_bound(both, 1.0, 0.0) >= of_state + 7 * unit_roundoff(torch.float32) * move.cond.abs()).all())


def test_predictions_of_an_end_are_less_exact_near_their_singularity() -> None:
    spec = FlowSpec(prediction="x1")
    early, late = move_of(random(1), None, 0.1, 0.0, spec), move_of(random(1), None, 0.1, 0.0, spec)
    late.parts[0].time_rows.fill_(0.999)
    ratio = (move_bound(late, 1.0, 0.0) - move_bound(late, 0.0, 0.0)) / (
        move_bound(early, 1.0, 0.0) - move_bound(early, 0.0, 0.0)
    )
    assert bool((ratio > 400).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("scale", "shift"), [(0.18215, 0.0), (0.41, 0.15), (-2.0, 40.0), (3.7, -3.0)])
def test_scaling_and_back_stays_within_its_bounds(dtype: torch.dtype, scale: float, shift: float) -> None:
    spec = FlowSpec(latent_scale=scale, latent_shift=shift)
    x = random(3).to(dtype)
    exact = x.double() / scale + shift
    for latent in (x / scale + shift, x * (1 / scale) + shift):
        assert bool(((latent.double() - exact).abs() <= scale_bound(exact, spec, dtype)).all())
        back = (latent.double() - shift) * scale
        assert bool(((back - x.double()).abs() <= unscale_bound(x.double(), spec, dtype)).all())


def test_maps_between_image_ranges_stay_within_their_bound() -> None:
    spec = FlowSpec(image_range=(0.0, 1.0), decode_range=(-1.0, 1.0))
    x = 3 * random(4)
    for image in ((x + 1) / 2, x / 2 + 0.5):
        exact = (x.double() + 1) / 2
        assert bool(((image - exact).abs() <= image_bound(exact, spec, torch.float32)).all())
    assert range_bound(0.0, 255.0, torch.float32) == pytest.approx(4 * 2**-24 * 255)


def test_small_numbers() -> None:
    assert unit_roundoff(torch.bfloat16) == 2**-8
    assert gamma(3, torch.float32) == pytest.approx(3 * 2**-24)
    assert half_digits(torch.float32) == 2**-11.5
    assert coarser(torch.float32, torch.bfloat16, torch.float64) is torch.bfloat16
    assert told_bound(FlowSpec(time_argument="timestep"), torch.int64) == 1e-3


def test_statistical_bounds_are_what_their_formulas_say() -> None:
    # Each test may give one false alarm in its share of the budget: 2 exp(-2 n d^2).
    assert 2 * math.exp(-2 * 1000 * ks_critical(1000) ** 2) == pytest.approx(SHARE)
    low, high = binomial_range(20, 0.5)
    tail = sum(math.comb(20, k) for k in range(low)) / 2**20
    assert tail <= SHARE / 2 < tail + math.comb(20, low) / 2**20
    assert low + high == 20
