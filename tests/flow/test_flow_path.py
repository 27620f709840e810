"""The probability path and the conversions of predictions, against closed forms."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fmcheck.errors import DeclarationError
from fmcheck.flow import as_prediction, as_velocity, interpolate, per_row, velocity_target
from fmcheck.spec import FlowSpec

SIGMAS = [0.0, 1e-2, 0.3]


def ends(shape=(3, 2, 4, 5), dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    source, data = torch.randn(2, *shape, generator=generator, dtype=torch.float64).to(dtype)
    return source, data


@pytest.mark.parametrize("sigma_min", SIGMAS)
def test_the_ends_of_the_path(sigma_min):
    source, data = ends()
    assert torch.equal(interpolate(source, data, torch.zeros(3, dtype=torch.float64), sigma_min), source)
    last = interpolate(source, data, torch.ones(3, dtype=torch.float64), sigma_min)
    torch.testing.assert_close(last, data + sigma_min * source, rtol=0, atol=1e-15)


@pytest.mark.parametrize("sigma_min", SIGMAS)
def test_each_row_has_its_own_time(sigma_min):
    source, data = ends()
    times = [0.1, 0.5, 0.9]
    rows = interpolate(source, data, torch.tensor(times, dtype=torch.float64), sigma_min)
    for row, t in enumerate(times):
        expected = (1 - (1 - sigma_min) * t) * source[row] + t * data[row]
        torch.testing.assert_close(rows[row], expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize("shape", [(4, 2, 3, 4), (4, 4), (4, 4, 4, 4), (1, 2, 3, 1), (4,)])
def test_time_runs_along_the_batch_also_when_it_could_broadcast_along_the_width(shape):
    times = torch.linspace(0.1, 0.9, shape[0], dtype=torch.float64)
    state = interpolate(torch.zeros(shape, dtype=torch.float64), torch.ones(shape, dtype=torch.float64), times)
    for row, t in enumerate(times):
        assert torch.equal(state[row], torch.full(shape[1:], t.item(), dtype=torch.float64))


def test_a_scalar_time_serves_all_rows():
    source, data = ends()
    t = torch.tensor(0.3, dtype=torch.float64)
    assert torch.equal(interpolate(source, data, t), interpolate(source, data, t.expand(3)))
    assert per_row(t, source) is t


@pytest.mark.parametrize("t", [torch.zeros(5), torch.zeros(3, 1), torch.zeros(1), torch.zeros(3, 1, 1, 1)])
def test_any_other_shape_of_time_is_refused(t):
    source, data = ends()
    with pytest.raises(DeclarationError, match=r"t: expected a scalar or shape \(3,\)"):
        interpolate(source, data, t)
    with pytest.raises(DeclarationError, match=r"t: expected a scalar or shape \(3,\)"):
        as_velocity(source, data, t, FlowSpec())


def test_ends_are_not_broadcast():
    source, data = ends()
    for call in (
        lambda: interpolate(source, data[:1], torch.zeros(3)),
        lambda: velocity_target(source[:1], data),
        lambda: as_velocity(source[:1], data, torch.zeros(3), FlowSpec()),
        lambda: as_prediction(source[:1], data, torch.zeros(3), FlowSpec()),
    ):
        with pytest.raises(DeclarationError, match="expected tensors of one shape"):
            call()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_state_keeps_its_dtype_under_float64_times(dtype):
    source, data = ends(dtype=dtype)
    t = torch.full((3,), 0.25, dtype=torch.float64)
    assert interpolate(source, data, t, 0.1).dtype == dtype
    assert velocity_target(source, data, 0.1).dtype == dtype
    for prediction in ("velocity", "reverse_velocity", "x1", "x0"):
        assert as_velocity(data, source, t, FlowSpec(prediction=prediction)).dtype == dtype


@pytest.mark.parametrize("sigma_min", SIGMAS)
def test_the_target_is_the_derivative_of_the_path(sigma_min):
    source, data = ends()
    # The path is straight, so a difference quotient is its derivative.
    early, late = torch.full((3,), 0.25, dtype=torch.float64), torch.full((3,), 0.75, dtype=torch.float64)
    change = interpolate(source, data, late, sigma_min) - interpolate(source, data, early, sigma_min)
    torch.testing.assert_close(change / 0.5, velocity_target(source, data, sigma_min), rtol=0, atol=4e-15)


def test_the_target_points_from_source_to_data():
    source, data = torch.tensor([[1.0]]), torch.tensor([[5.0]])
    assert velocity_target(source, data).item() == 4.0
    assert velocity_target(source, data, 0.5).item() == 4.5


@given(t=st.floats(0.02, 0.98), sigma_min=st.sampled_from(SIGMAS))
@settings(max_examples=60, deadline=None)
def test_every_kind_of_prediction_gives_the_same_velocity(t, sigma_min):
    source, data = ends()
    times = torch.full((3,), t, dtype=torch.float64)
    state, velocity = interpolate(source, data, times, sigma_min), velocity_target(source, data, sigma_min)
    outputs = {"velocity": velocity, "reverse_velocity": -velocity, "x1": data, "x0": source}
    for prediction, output in outputs.items():
        found = as_velocity(output, state, times, FlowSpec(prediction=prediction, sigma_min=sigma_min))
        # Division by t or 1 - t, at least 0.02, amplifies the rounding of the state.
        torch.testing.assert_close(found, velocity, rtol=0, atol=2e-13)


@pytest.mark.parametrize("prediction", ["x0", "x1"])
def test_a_wrong_prediction_moves_the_velocity_by_its_own_factor(prediction):
    # d v / d x1 = 1 / a and d v / d x0 = -1 / t: row-wise, on a square state.
    spec, shape = FlowSpec(prediction=prediction, sigma_min=0.1), (3, 3)
    times = torch.tensor([0.2, 0.5, 0.8], dtype=torch.float64)
    state, output = torch.zeros(shape, dtype=torch.float64), torch.ones(shape, dtype=torch.float64)
    change = as_velocity(output, state, times, spec) - as_velocity(0 * output, state, times, spec)
    factor = -1 / times if prediction == "x0" else 1 / (1 - 0.9 * times)
    torch.testing.assert_close(change, factor[:, None].expand(shape), rtol=1e-15, atol=0)


def test_singular_times_give_values_that_are_not_finite():
    source, data = ends()
    zero, one = torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
    assert not as_velocity(source + 1, source, zero, FlowSpec(prediction="x0")).isfinite().any()
    assert not as_velocity(data, data, one, FlowSpec(prediction="x1")).isfinite().any()
    assert as_velocity(data, source, one, FlowSpec(prediction="x1", sigma_min=0.1)).isfinite().all()


PREDICTIONS = ["velocity", "reverse_velocity", "x1", "x0"]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("sigma_min", SIGMAS)
def test_a_prediction_is_what_the_ends_of_the_path_say(sigma_min, dtype):
    source, data = ends(dtype=dtype)
    t = torch.tensor([0.0, 0.4, 1.0], dtype=dtype)
    state, velocity = interpolate(source, data, t, sigma_min), velocity_target(source, data, sigma_min)
    for prediction, expected in zip(PREDICTIONS, (velocity, -velocity, data, source), strict=True):
        found = as_prediction(velocity, state, t, FlowSpec(prediction=prediction, sigma_min=sigma_min))
        assert found.dtype == dtype
        # A dozen roundings of numbers below 8.
        torch.testing.assert_close(found, expected, rtol=0, atol=50 * torch.finfo(dtype).eps)


@given(prediction=st.sampled_from(PREDICTIONS), t=st.floats(0.02, 0.98), sigma_min=st.sampled_from(SIGMAS))
@settings(max_examples=60, deadline=None)
def test_a_velocity_comes_back_from_its_prediction(prediction, t, sigma_min):
    state, velocity = ends()
    times, spec = torch.full((3,), t, dtype=torch.float64), FlowSpec(prediction=prediction, sigma_min=sigma_min)
    back = as_velocity(as_prediction(velocity, state, times, spec), state, times, spec)
    # Division by a share of the path of at least 0.02.
    torch.testing.assert_close(back, velocity, rtol=0, atol=2e-13)


def test_a_prediction_is_never_singular():
    state, velocity = ends()
    for time in (0.0, 1.0):
        t = torch.full((3,), time, dtype=torch.float64)
        for prediction in PREDICTIONS:
            assert as_prediction(velocity, state, t, FlowSpec(prediction=prediction)).isfinite().all()
