"""Guidance: the two formulas, and the coefficients recovered from a step."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fmcheck.errors import DeclarationError
from fmcheck.flow import Coefficients, combine, combine_formula, effective_coefficients, rescaling
from fmcheck.spec import FlowSpec

EPS = torch.finfo(torch.float64).eps
NUMBERS = st.floats(-20, 20).filter(lambda number: abs(number) > 1e-6 or number == 0)


def pair(seed=0, shape=(2, 3, 4, 5), dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    cond, uncond = torch.randn(2, *shape, generator=generator, dtype=torch.float64).to(dtype)
    return cond, uncond


def test_combine_is_the_textbook_formula():
    cond, uncond = torch.tensor([[2.0]]), torch.tensor([[-1.0]])
    assert combine(cond, uncond, 3.0).tolist() == [[4 * 2.0 - 3 * -1.0]]


@pytest.mark.parametrize("scale", [0.0, 2.0, 3.0, 4.5, 6.0])
def test_the_two_formulas_agree_when_the_scales_differ_by_one(scale):
    cond, uncond = pair()
    plus = combine_formula(cond, uncond, scale, FlowSpec(guidance_formula="cond_plus"))
    other = combine_formula(cond, uncond, 1 + scale, FlowSpec(guidance_formula="uncond_plus"))
    torch.testing.assert_close(plus, other, rtol=0, atol=64 * EPS)
    torch.testing.assert_close(plus, combine(cond, uncond, scale), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("spec", "scale"),
    [
        (FlowSpec(), 0.0),
        (FlowSpec(guidance_formula="uncond_plus"), 1.0),
        (FlowSpec(guidance_formula="uncond_plus", guidance_from=1.0), 0.5),
        (FlowSpec(guidance_from=1.0), 1.0),
    ],
)
def test_guidance_off_returns_the_conditional_velocity(spec, scale):
    cond, uncond = pair()
    assert combine_formula(cond, uncond, scale, spec) is cond


def test_guidance_below_the_neutral_scale_is_not_off_by_default():
    cond, uncond = pair()
    found = combine_formula(cond, uncond, 0.0, FlowSpec(guidance_formula="uncond_plus"))
    assert torch.equal(found, uncond)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_dtype_is_kept(dtype):
    cond, uncond = pair(dtype=dtype)
    assert combine(cond, uncond, 4.5).dtype == dtype
    assert combine_formula(cond, uncond, 4.5, FlowSpec(guidance_formula="uncond_plus")).dtype == dtype


def test_velocities_are_not_broadcast():
    cond, uncond = pair()
    for call in (
        lambda: combine(cond, uncond[:1], 3.0),
        lambda: combine_formula(cond, uncond[:1], 3.0, FlowSpec()),
        lambda: effective_coefficients(cond, cond, uncond[:1]),
        lambda: effective_coefficients(cond[:1], cond, uncond),
    ):
        with pytest.raises(DeclarationError, match="expected tensors of one shape"):
            call()


def left_over(found, delta, cond, uncond):
    return float((delta - found.cond * cond - found.uncond * uncond).abs().max())


@given(a=NUMBERS, b=NUMBERS, seed=st.integers(0, 1000))
@settings(max_examples=80, deadline=None)
def test_planted_coefficients_are_recovered(a, b, seed):
    cond, uncond = pair(seed)
    found = effective_coefficients(a * cond + b * uncond, cond, uncond)
    # 120 products a sum, each rounded; the columns are nearly orthogonal.
    allowed = 128 * EPS * (abs(a) + abs(b)) / found.condition
    assert abs(found.cond - a) <= allowed
    assert abs(found.uncond - b) <= allowed
    assert left_over(found, a * cond + b * uncond, cond, uncond) <= 10 * allowed


@given(seed=st.integers(0, 1000), exponent=st.integers(-6, 0))
@settings(max_examples=60, deadline=None)
def test_nearly_parallel_velocities_lose_no_more_than_the_condition_says(seed, exponent):
    cond, noise = pair(seed)
    uncond = cond + 10.0**exponent * noise
    found = effective_coefficients(0.1 * (4 * cond - 3 * uncond), cond, uncond)
    assert found.weight == pytest.approx(3, abs=1000 * EPS / found.condition)
    assert found.dt == pytest.approx(0.1, abs=1000 * EPS)


@given(seed=st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_any_update_is_fitted_like_numpy_fits_it(seed):
    cond, uncond = pair(seed)
    delta = pair(seed + 5000)[0]
    columns = np.stack([cond.flatten().numpy(), uncond.flatten().numpy()], axis=1)
    expected = np.linalg.lstsq(columns, delta.flatten().numpy())[0]
    found = effective_coefficients(delta, cond, uncond)
    np.testing.assert_allclose([found.cond, found.uncond], expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    ("name", "coefficients", "dt", "weight"),
    [
        ("correct", (4.0, -3.0), 0.1, 3.0),
        ("halves swapped", (-3.0, 4.0), 0.1, -4.0),
        ("u + w (c - u)", (3.0, -2.0), 0.1, 2.0),
        ("weight halved", (2.5, -1.5), 0.1, 1.5),
        ("guidance ignored", (1.0, 0.0), 0.1, 0.0),
        ("sign of u", (4.0, 3.0), 0.7, -3 / 7),
        ("update subtracted", (-4.0, 3.0), -0.1, 3.0),
    ],
)
def test_known_mistakes_leave_their_fingerprint(name, coefficients, dt, weight):
    cond, uncond = pair()
    a, b = coefficients
    found = effective_coefficients(0.1 * (a * cond + b * uncond), cond, uncond)
    assert found.dt == pytest.approx(dt, abs=1e-14)
    assert found.weight == pytest.approx(weight, abs=1e-13)


def test_one_column_without_an_unconditional_velocity():
    cond, _ = pair()
    found = effective_coefficients(-0.25 * cond, cond)
    assert found.cond == pytest.approx(-0.25, abs=1e-15)
    assert (found.uncond, found.weight, found.condition) == (0.0, 0.0, 1.0)


def test_the_condition_is_the_sine_between_the_velocities():
    cond = torch.tensor([[1.0, 0.0]])
    for angle in (0.1, 1.0, math.pi / 2):
        uncond = torch.tensor([[7 * math.cos(angle), 7 * math.sin(angle)]], dtype=torch.float64)
        found = effective_coefficients(uncond, cond.double(), uncond)
        assert found.condition == pytest.approx(math.sin(angle), rel=1e-14)


def test_low_precision_inputs_are_solved_in_float64():
    cond, uncond = pair(dtype=torch.bfloat16)
    found = effective_coefficients(4 * cond.double() - 3 * uncond.double(), cond, uncond)
    assert (found.cond, found.uncond) == (pytest.approx(4, abs=1e-13), pytest.approx(-3, abs=1e-13))


@pytest.mark.parametrize("size", [1e-200, 1e200])
def test_squares_neither_overflow_nor_underflow(size):
    cond, uncond = pair()
    found = effective_coefficients(size * (4 * cond - 3 * uncond), size * cond, size * uncond)
    assert (found.cond, found.uncond) == (pytest.approx(4, abs=1e-13), pytest.approx(-3, abs=1e-13))


def test_columns_of_very_different_size():
    cond, uncond = pair()
    found = effective_coefficients(4 * cond - 3e-9 * uncond, cond, 1e-9 * uncond)
    assert (found.cond, found.uncond) == (pytest.approx(4, abs=1e-13), pytest.approx(-3, abs=1e-5))


@pytest.mark.parametrize("name", ["equal", "proportional", "zero cond", "zero uncond"])
def test_undetermined_coefficients_are_nan_with_condition_zero(name):
    cond, uncond = pair()
    cond, uncond = {
        "equal": (cond, cond),
        "proportional": (cond, cond / 3),
        "zero cond": (0 * cond, uncond),
        "zero uncond": (cond, 0 * cond),
    }[name]
    found = effective_coefficients(cond + uncond, cond, uncond)
    assert not found.determined
    assert math.isnan(found.cond)
    assert math.isnan(found.uncond)
    assert math.isnan(found.dt)
    assert math.isnan(found.weight)
    assert found.condition == 0.0


def test_a_zero_column_alone_is_undetermined():
    zeros = torch.zeros(1, 2, 2, 2)
    assert effective_coefficients(zeros + 1, zeros).condition == 0.0


def test_a_step_of_zero_is_determined_but_has_no_weight():
    cond, uncond = pair()
    found = effective_coefficients(0 * cond, cond, uncond)
    assert (found.cond, found.uncond, found.dt) == (0.0, 0.0, 0.0)
    assert found.determined
    assert math.isnan(found.weight)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("position", [0, 1, 2])
def test_values_that_are_not_finite_give_nan_everywhere(value, position):
    cond, uncond = pair()
    tensors = [cond + uncond, cond.clone(), uncond.clone()]
    tensors[position][0, 0, 0, 0] = value
    found = effective_coefficients(*tensors)
    assert not found.determined
    assert math.isnan(found.condition)
    assert math.isnan(found.cond)


def test_empty_tensors_give_nan():
    empty = torch.zeros(0, 3)
    assert math.isnan(effective_coefficients(empty, empty, empty).condition)


def test_velocities_that_require_grad_are_read():
    cond, uncond = pair()
    found = effective_coefficients(cond.clone().requires_grad_(), cond.requires_grad_(), uncond)
    assert found.cond == pytest.approx(1, abs=1e-14)


def test_weight_of_plain_numbers():
    assert Coefficients(cond=0.4, uncond=-0.3, condition=1.0).weight == pytest.approx(3)


@pytest.mark.parametrize("phi", [0.7, 1.0])
def test_rescaled_guidance_has_the_mixed_deviation_of_each_row(phi):
    """arXiv 2305.08891: at `phi = 1` the combined prediction gets the deviation of the conditional one."""
    cond, uncond = pair()
    combined = combine(cond, uncond, 5.0)
    factor = rescaling(cond, uncond, 5.0, FlowSpec(guidance_rescale=phi))
    for row in range(len(cond)):
        share = np.std(cond[row].numpy()) / np.std(combined[row].numpy())
        assert float(factor[row].flatten()) == pytest.approx(phi * share + 1 - phi, rel=1e-13)


@pytest.mark.parametrize(("over", "axes"), [("row", (1, 2)), ("last_axis", (2,))])
def test_normalised_guidance_keeps_the_norm_of_the_conditional_prediction(over, axes):
    cond, uncond = pair(shape=(3, 4, 5), seed=1)
    scaled = rescaling(cond, uncond, 5.0, FlowSpec(guidance_norm=over)) * combine(cond, uncond, 5.0)
    np.testing.assert_allclose(
        np.sqrt((scaled.numpy() ** 2).sum(axes)), np.sqrt((cond.numpy() ** 2).sum(axes)), rtol=1e-13
    )


def test_nothing_is_rescaled_where_nothing_is_declared_or_left():
    cond, uncond = pair()
    assert float(rescaling(cond, uncond, 2.0, FlowSpec()).max()) == 1
    zero = torch.zeros_like(cond)
    assert bool((rescaling(zero, zero, 2.0, FlowSpec(guidance_norm="row")) == 1).all())
