"""Sizes of the state, against the runs they come from."""

import math
from dataclasses import replace

import pytest
import torch

from fmcheck.plots.states import state_sizes
from fmcheck.tensors import rms_rows
from tests.foreign.subjects import SUBJECTS
from tests.plots.conftest import base_run, toy_run
from tests.rules.toy import SPEC


def test_root_mean_square_by_rows() -> None:
    state = torch.tensor([[3.0, 4.0], [0.0, 0.0], [1.0, -1.0]]).reshape(3, 1, 1, 2)
    assert rms_rows(state) == pytest.approx((math.sqrt(12.5), 0.0, 1.0))


def test_the_states_are_those_that_the_network_and_the_decoder_were_given() -> None:
    run = toy_run()
    states = run.reading.states
    calls = run.trace.of("velocity")
    assert len(states) == 5
    for state, call in zip(states, calls, strict=False):
        assert torch.equal(state, call.inputs["x"][:3])
    assert torch.equal(states[4], run.trace.of("sample")[0].inputs["x"])


def test_sizes_of_all_rows_are_the_mean_square_of_the_rows() -> None:
    sizes = state_sizes(toy_run())
    assert sizes.steps == (0, 1, 2, 3, 4)
    for rows, whole in zip(sizes.rows, sizes.whole, strict=True):
        assert whole**2 == pytest.approx(sum(r * r for r in rows) / 3)


def test_a_flow_from_text_starts_at_its_latents() -> None:
    run = toy_run()
    sizes = state_sizes(run)
    latents = run.trace.of("text")[0].output
    assert latents is not None
    expected = [math.sqrt(float(row.double().square().mean())) for row in latents]
    assert sizes.start == pytest.approx((min(expected), max(expected)))
    assert sizes.rows[0] == pytest.approx(expected)


def test_a_flow_from_noise_starts_at_its_deviation() -> None:
    run = base_run(SUBJECTS["functional"])
    sizes = state_sizes(run)
    count = run.reading.initial[0].numel()
    assert sizes.start == pytest.approx((1 - 4 / math.sqrt(2 * count), 1 + 4 / math.sqrt(2 * count)))
    assert all(sizes.start[0] < size < sizes.start[1] for size in sizes.rows[0])


def test_nothing_is_expected_where_nothing_is_declared() -> None:
    sizes = state_sizes(toy_run(text=None))
    assert sizes.start is None
    assert "not observed" in sizes.start_says


def test_a_final_state_that_enters_nothing_is_not_seen() -> None:
    sizes = state_sizes(toy_run(sample=None, decode=None))
    assert len(sizes.rows) == 4
    assert "enters no observed function" in sizes.unseen


def test_states_of_a_solver_without_a_formula_are_seen_all_the_same() -> None:
    assert len(state_sizes(toy_run(spec=replace(SPEC, solver="stochastic"))).rows) == 5
