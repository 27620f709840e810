"""Times of a run: edges, step sizes and what the network was told, against closed forms."""

import itertools
import math
from dataclasses import replace
from statistics import NormalDist
from typing import Any

import pytest
import torch
from torch import Tensor

from fmcheck.errors import NotInformative
from fmcheck.flow import time_edges
from fmcheck.plots.times import path_log_snr, quantile_curve, steps_of, told_of
from fmcheck.spec import FlowSpec
from tests.foreign.subjects import SUBJECTS
from tests.plots.conftest import base_run, toy_run
from tests.rules.toy import SPEC, Toy

# Quantiles of the logit-normal law at 0, 1/4, 1/2, 3/4, 1.
QUARTILE = 1 / (1 + math.exp(-NormalDist().inv_cdf(0.75)))
EDGES = (0.0, 1 - QUARTILE, 0.5, QUARTILE, 1.0)
ROUNDING = 1e-5


class Uniform(Toy):
    def edges(self, num_steps: int) -> Tensor:
        return torch.linspace(0, 1, num_steps + 1)


class LastDropped(Toy):
    def edges(self, num_steps: int) -> Tensor:
        return super().edges(num_steps)[:-1]


class TwiceTheLastStep(Toy):
    def edges(self, num_steps: int) -> Tensor:
        edges = super().edges(num_steps)
        return torch.cat([edges, edges[-1:] + 0.25])


class Forgetful(Toy):
    def integrate(self, x: Tensor, num_steps: int, scale: float, generator: torch.Generator) -> Tensor:
        return super().integrate(x, num_steps, scale, generator).sin()


class RowTimes(Toy):
    def log_snr(self, t: Tensor, rows: int) -> Tensor:
        return super().log_snr(t, rows) - 0.08 * torch.arange(rows)


class ThirdCopy(Toy):
    def velocity_at(self, x: Tensor, t: Tensor, scale: float) -> Tensor:
        rows = 3 * len(x)
        return self.velocity(torch.cat([x] * 3), self.log_snr(t, rows), self.null(rows, len(x)))[: len(x)]


class TestSteps:
    def test_the_declared_edges_are_the_quantiles(self) -> None:
        assert steps_of(toy_run()).edges == pytest.approx(EDGES, abs=1e-15)

    def test_the_state_passed_them(self) -> None:
        steps = steps_of(toy_run())
        assert steps.passed == pytest.approx(EDGES, abs=ROUNDING)
        assert steps.taken == pytest.approx([b - a for a, b in itertools.pairwise(EDGES)], abs=ROUNDING)
        assert all(abs(a - b) <= c for a, b, c in zip(steps.taken, steps.lengths, steps.allowed, strict=True))

    def test_steps_of_another_grid_are_what_they_are(self) -> None:
        steps = steps_of(toy_run(Uniform))
        assert steps.taken == pytest.approx([0.25] * 4, abs=ROUNDING)
        assert abs(steps.taken[0] - steps.lengths[0]) > 1000 * steps.allowed[0]

    def test_a_missing_step_is_missing(self) -> None:
        steps = steps_of(toy_run(LastDropped))
        assert (len(steps.lengths), len(steps.taken)) == (4, 3)
        assert steps.passed[-1] == pytest.approx(QUARTILE, abs=ROUNDING)

    def test_a_surplus_step_is_there(self) -> None:
        steps = steps_of(toy_run(TwiceTheLastStep))
        assert steps.taken[4] == pytest.approx(0.25, abs=ROUNDING)

    def test_a_step_whose_length_cannot_be_read_has_none(self) -> None:
        steps = steps_of(toy_run(Forgetful))
        assert math.isnan(steps.taken[-1])
        assert steps.taken[:3] == pytest.approx([b - a for a, b in itertools.pairwise(EDGES[:4])], abs=ROUNDING)

    def test_a_solver_without_a_formula_says_so(self) -> None:
        steps = steps_of(toy_run(spec=replace(SPEC, solver="other")))
        assert "no formula" in steps.reason
        assert all(math.isnan(length) for length in steps.taken)
        assert steps.edges == pytest.approx(EDGES, abs=1e-15)

    def test_a_loop_that_cannot_be_read_has_no_steps(self) -> None:
        with pytest.raises(NotInformative, match="do not add up"):
            steps_of(toy_run(ThirdCopy))


class TestTold:
    def test_midpoints_in_the_users_units(self) -> None:
        told = told_of(toy_run())
        middle = [(a + b) / 2 for a, b in itertools.pairwise(EDGES)]
        assert told.name == "log_snr"
        assert told.map == "log_snr = 4 - 8 t"
        assert told.position == pytest.approx((0.5, 1.5, 2.5, 3.5))
        assert told.expected == pytest.approx(middle, abs=1e-15)
        assert told.argument(told.times) == pytest.approx([4 - 8 * t for t in middle], abs=ROUNDING)
        assert told.beyond == ()

    def test_an_evaluation_that_was_not_made_is_still_declared(self) -> None:
        told = told_of(toy_run(LastDropped))
        assert (told.made, told.declared) == (3, 4)
        assert math.isnan(told.times[3])
        assert not told.apart
        assert told.expected[3] == pytest.approx((QUARTILE + 1) / 2)

    def test_a_surplus_evaluation_has_no_declared_time(self) -> None:
        told = told_of(toy_run(TwiceTheLastStep))
        assert (told.made, told.declared) == (5, 4)
        assert math.isnan(told.expected[4])
        assert told.beyond == ()

    def test_rows_at_several_times_are_a_range(self) -> None:
        told = told_of(toy_run(RowTimes))
        # Three prompts, both halves: six rows, each 0.01 later than the one above it.
        assert [b - a for a, b in zip(told.low, told.high, strict=True)] == pytest.approx([0.05] * 4, abs=ROUNDING)
        assert told.times == pytest.approx(told.low)
        assert told.apart

    def test_a_heun_sampler_is_asked_at_both_ends_of_its_steps(self) -> None:
        told = told_of(base_run(SUBJECTS["functional"]))
        assert told.times == pytest.approx((0, 0.25, 0.25, 0.5, 0.5, 0.75, 0.75, 1), abs=ROUNDING)
        assert told.position == pytest.approx((0, 1, 1, 2, 2, 3, 3, 4))

    @pytest.mark.parametrize(
        ("argument", "formula"),
        [
            ("t", "t"),
            ("sigma", "sigma = 1 - t"),
            ("timestep", "timestep = 1000 - 1000 t"),
            ("log_snr", "log_snr = 4 - 8 t"),
        ],
    )
    def test_the_map_as_a_formula(self, argument: Any, formula: str) -> None:
        assert told_of(toy_run(spec=replace(SPEC, time_argument=argument))).map == formula


class TestLogSnr:
    @pytest.mark.parametrize(("time", "log_snr"), [(0.5, 0.0), (0.75, 2 * math.log(3)), (0.25, -2 * math.log(3))])
    def test_of_the_straight_path(self, time: float, log_snr: float) -> None:
        assert path_log_snr(time, 0.0) == pytest.approx(log_snr, abs=1e-15)

    def test_at_the_ends(self) -> None:
        assert path_log_snr(0.0, 0.0) == -math.inf
        assert path_log_snr(1.0, 0.0) == math.inf
        assert path_log_snr(1.0, 0.01) == pytest.approx(-2 * math.log(0.01))

    @pytest.mark.parametrize("time", [-0.1, 1.1, math.nan])
    def test_there_is_none_outside(self, time: float) -> None:
        assert math.isnan(path_log_snr(time, 0.0))


def test_the_quantile_curve_goes_through_the_edges() -> None:
    levels, values = quantile_curve(SPEC)
    assert (levels[0], levels[-1], values[0], values[-1]) == (0, 1, 0, 1)
    assert values[len(values) // 4 * 3] == pytest.approx(QUARTILE)
    assert quantile_curve(FlowSpec(grid="uniform")) == ((), ())
    clamped = FlowSpec(grid_clamp=0.001)
    assert quantile_curve(clamped)[1][0] == float(time_edges(4, clamped)[0])
