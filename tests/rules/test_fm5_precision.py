"""FM506 to FM508 and FM311: digits of the state, promoted types, overflow, and times that merge."""

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from fmcheck.case import Case
from fmcheck.tolerance import rounding_shows
from tests.rules.loops import Pipeline, Style, but, caught, clean, judge, silent


class Bfloat16State(Pipeline):
    def step(self, x: Tensor, start: Tensor, end: Tensor, scale: float, last: bool) -> Tensor:
        return super().step(x, start, end, scale, last).bfloat16().float()


class SkipsSmall(Pipeline):
    def step(self, x: Tensor, start: Tensor, end: Tensor, scale: float, last: bool) -> Tensor:
        y = super().step(x, start, end, scale, last)
        return torch.where((y - x).abs() < 1e-2, x, y)


class DriftsAfterwards(Pipeline):
    """Adds 32 units in the last place after the loop, where no step shows it."""

    def integrate(self, x: Tensor, steps: int, scale: float) -> Tensor:
        return super().integrate(x, steps, scale) * (1 + 2.0**-10)


class TestDigitsLost:
    def test_a_correct_loop_reports_its_lost_bits(self) -> None:
        outcome = judge("FM506")
        clean(outcome)
        bits = [float(text.split()[0]) for text in outcome.measured]
        # A sum of four numbers of one size loses about a bit; the bound of worst cases is log2 of all its roundings.
        assert bits
        assert all(0 <= found < 4 for found in bits)

    @pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
    @pytest.mark.parametrize("solver", ["euler", "midpoint", "heun"])
    def test_networks_of_any_dtype(self, dtype: str, solver: str) -> None:
        clean(judge("FM506", spec=but(solver=solver), case=Case(height=16, width=16, dtype=dtype), dtypes=(dtype,)))

    @pytest.mark.parametrize(
        ("pipeline", "cause"), [(Bfloat16State, "small steps are lost"), (SkipsSmall, "small steps are lost")]
    )
    def test_lost_digits_are_found(self, pipeline: type[Pipeline], cause: str) -> None:
        caught(judge("FM506", pipeline), cause, "of 24 bits are lost")

    def test_a_touched_state_is_told_from_lost_steps(self) -> None:
        caught(judge("FM506", DriftsAfterwards), "step 3 of 4 is")


class Float64Grid(Pipeline):
    def integrate(self, x: Tensor, steps: int, scale: float) -> Tensor:
        edges = self.edges(steps)
        for start, end in pairwise(edges):
            dt = (end - start).double().reshape(1, 1, 1, 1)
            x = x + dt * self.velocity(x, (start + end) / 2, scale)
        return x


class TestPromoted:
    def test_a_grid_in_float64_promotes_the_state(self) -> None:
        outcome = judge("FM507", Float64Grid)
        assert {finding.severity for finding in outcome.findings} == {"warning"}
        assert "velocity[1] is given a float64 state" in outcome.findings[0].message

    def test_a_state_that_is_float64_from_the_start_is_left_alone(self) -> None:
        silent(judge("FM507", style=Style(state="float64")), "the state is float64 from the start")

    def test_scalars_in_float64_promote_nothing(self) -> None:
        clean(judge("FM507", style=Style(grid="float64")))


HALF = Case(height=16, width=16, dtype="float16")


class TestOverflow:
    def test_velocities_combined_in_float32_stay_finite(self) -> None:
        clean(judge("FM508", case=HALF, dtypes=("float16",)))

    def test_velocities_combined_in_float16_do_not(self) -> None:
        outcome = judge("FM508", style=Style(combine=None), case=HALF, dtypes=("float16",))
        caught(outcome, "the velocities are combined in float16")

    def test_a_state_that_overflows_in_the_cast_for_the_call_alone_is_none(self) -> None:
        outcome = judge("FM508", style=Style(cast=True), case=HALF, dtypes=("float16",))
        assert not outcome.findings, [str(finding) for finding in outcome.findings]

    def test_a_state_declared_in_the_networks_dtype_is_not_judged(self) -> None:
        spec = but(state_dtype="network")
        silent(judge("FM508", spec=spec, case=HALF, dtypes=("float16",)), "a state in the network's dtype")

    def test_without_float16_there_is_nothing_to_see(self) -> None:
        silent(judge("FM508"), "the subject does not declare float16")


def told(change: Any) -> type[Pipeline]:
    """A pipeline whose network changes its time argument first."""

    class Told(Pipeline):
        def network(self, x: Tensor, time: Tensor, null: Tensor | None = None, hidden: Tensor | None = None) -> Tensor:
            return super().network(x, change(time), null, hidden)

    return Told


class TestTimesMerge:
    @pytest.mark.parametrize("argument", ["log_snr", "t", "sigma", "timestep"])
    def test_a_network_that_keeps_its_times(self, argument: str) -> None:
        clean(judge("FM311", spec=but(time_argument=argument)))

    @pytest.mark.parametrize("change", [torch.round, torch.trunc], ids=["round", "trunc"])
    def test_whole_timesteps_are_a_thousandth_apart(self, change: Any) -> None:
        clean(judge("FM311", told(change), spec=but(time_argument="timestep")))

    def test_bfloat16_merges_half_of_them(self) -> None:
        outcome = judge("FM311", told(lambda time: time.bfloat16().float()))
        caught(outcome, "the time argument is rounded to bfloat16 before it is embedded", "neighbouring times apart")
        assert {finding.severity for finding in outcome.findings} == {"error"}

    def test_a_coarse_table_merges_nearly_all(self) -> None:
        caught(judge("FM311", told(lambda time: (8 * time).round() / 8)), "looked up in a coarse table")

    def test_one_time_for_all_rows_cannot_be_told_apart(self) -> None:
        silent(judge("FM311", spec=but(time_argument="t"), style=Style(scalar_time=True)), "not told one time a row")

    def test_bfloat16_keeps_507_of_1001_times(self) -> None:
        """The figure of the docstring."""
        assert len(torch.linspace(0, 1, 1001).bfloat16().unique()) == 507

    def test_a_velocity_that_moves_less_than_its_rounding_shows_nothing(self) -> None:
        flat = 1 + torch.arange(6)[:, None] * torch.full((40,), 1e-5)
        assert not rounding_shows(flat.bfloat16())
        assert rounding_shows(flat.float())

    @pytest.mark.parametrize("share", [0.05, 0.25])
    def test_the_chance_of_equal_velocities_is_the_product_over_elements(self, share: float) -> None:
        """Elements that move by twice `share` of a unit a time: `(1 - share)^n` is below 1e-6 from here on."""
        enough = math.ceil(math.log(1e-6) / math.log1p(-share))
        moved = 100 * 2 * share * torch.finfo(torch.float32).eps
        for count, shows in ((enough - 1, False), (enough + 1, True)):
            rows = torch.ones(101, count)
            rows[-1] += moved
            assert rounding_shows(rows) == shows
