"""The oracle rules on loops that are written out by hand, correct ones and broken ones."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from fmcheck.case import Case
from fmcheck.oracles import FIELDS, constant_runs
from fmcheck.outcome import Outcome
from fmcheck.rules import get_rule
from fmcheck.rules.effective import Effective
from fmcheck.run import Session
from tests.rules.loops import Pipeline, Style, but, caught, loop_subject, outcomes, silent

ORACLES = ["FM208", "FM503", "FM504", "FM505"]
SOLVERS = [("euler", "midpoint"), ("euler", "left"), ("midpoint", "left"), ("heun", "left")]
GRIDS = [
    {"grid": "logit_normal"},
    {"grid": "uniform"},
    {"grid": "shifted", "grid_shift": 3.0},
    {"grid": "logit_normal", "grid_mean": 0.4, "grid_std": 1.5},
    {"grid": "logit_normal", "grid_clamp": 1e-3},
]


PLAIN = Style()


def on(pipeline: type[Pipeline] = Pipeline, code: str = "FM504", **fields: Any) -> Outcome:
    return outcomes([code], pipeline, **fields)[code]


def correct(spec: Any, style: Style = PLAIN, dtype: str = "float32") -> None:
    found = outcomes(ORACLES, style=style, spec=spec, case=Case(height=16, width=16, dtype=dtype), dtypes=(dtype,))
    for outcome in found.values():
        assert not outcome.findings, [str(finding) for finding in outcome.findings]
        assert outcome.checks or "leaves the order open" in outcome.reason


class TestCorrectLoops:
    """No false alarm on solvers, grids, precisions and conventions; the slow tests go through all of them."""

    @pytest.mark.parametrize(
        ("solver", "grid"),
        [
            pytest.param(solver, grid, marks=[] if (i + j) % 2 == 0 else pytest.mark.slow)
            for (i, solver), (j, grid) in itertools.product(enumerate(SOLVERS), enumerate(GRIDS))
        ],
    )
    def test_solvers_and_grids(self, solver: tuple[str, str], grid: dict[str, Any]) -> None:
        correct(but(solver=solver[0], evaluation_point=solver[1], **grid))

    @pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
    @pytest.mark.parametrize(("solver", "point"), [SOLVERS[0], SOLVERS[3]])
    def test_precisions(self, solver: str, point: str, dtype: str) -> None:
        correct(but(solver=solver, evaluation_point=point, **GRIDS[2]), dtype=dtype)

    @pytest.mark.parametrize("prediction", ["reverse_velocity", "x1", "x0"])
    def test_predictions(self, prediction: str) -> None:
        correct(but(prediction=prediction))

    @pytest.mark.parametrize(
        ("layout", "style"),
        [
            ("uncond_first", Style(null=False)),
            ("separate", Style(null=False)),
            ("separate_uncond_first", Style(parts=1, null=False)),
            ("cond_first", Style(parts=1, formula="cond")),
            ("cond_first", Style(cast=True, formula="uncond", decode_parts=1)),
            ("uncond_first", Style(grid="float64", reciprocal=True)),
        ],
    )
    def test_layouts_and_styles(self, layout: str, style: Style) -> None:
        correct(but(guidance_layout=layout, time_argument="timestep"), style)

    def test_a_state_in_the_networks_dtype_is_right_where_it_is_declared(self) -> None:
        correct(but(state_dtype="network"), Style(state="bfloat16"), dtype="bfloat16")

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("solver", "layout", "argument", "dtype"),
        list(
            itertools.product(
                SOLVERS,
                ["cond_first", "uncond_first", "separate", "separate_uncond_first"],
                ["t", "sigma", "timestep", "log_snr"],
                ["float32", "bfloat16"],
            )
        ),
    )
    def test_all_conventions(self, solver: tuple[str, str], layout: str, argument: str, dtype: str) -> None:
        spec = but(solver=solver[0], evaluation_point=solver[1], guidance_layout=layout, time_argument=argument)
        for style in (Style(), Style(null=False), Style(parts=1)):
            correct(spec, style, dtype)


class TestFigures:
    """What is measured on correct loops is what theory says."""

    @pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("midpoint", 2), ("heun", 2)])
    @pytest.mark.parametrize("grid", GRIDS[:3], ids=lambda grid: grid["grid"])
    def test_orders_within_a_tenth(self, solver: str, order: int, grid: dict[str, Any]) -> None:
        told = on(code="FM503", spec=but(solver=solver, evaluation_point="left", **grid)).measured
        assert float(told[0].split()[3]) == pytest.approx(order, abs=0.1)

    @pytest.mark.parametrize("formula", ["cond_plus", "uncond_plus"])
    @pytest.mark.parametrize("scale", [2.5, 7.5])
    def test_guidance_coefficients_to_a_millionth_in_float32(self, formula: str, scale: float) -> None:
        spec = but(guidance_formula=formula)
        session = Session(loop_subject(spec=spec, case=Case(height=16, width=16, guidance_scale=scale)))
        found = Effective(session.run(constant_runs(session.plan)["4 steps"])).coefficients
        cond = 1 + scale if formula == "cond_plus" else scale
        assert found.cond == pytest.approx(cond, abs=1e-6)
        assert found.uncond == pytest.approx(1 - cond, abs=1e-6)

    def test_the_clamp_of_the_design_is_measured(self) -> None:
        """`q = linspace(1e-3, 1 - 1e-3, K + 1)` covers 0.91298 of the path, with 1e-6 it is 0.98286: both published."""
        for clamp, covered in ((1e-3, "0.91298"), (1e-6, "0.98286")):
            told = on(code="FM505", spec=but(grid_clamp=clamp)).measured
            assert told[0] == f"covered path {covered} at 4, 8, 16, 32 steps"


class Left(Pipeline):
    def step(self, x: Tensor, start: Tensor, end: Tensor, scale: float, last: bool) -> Tensor:
        return x + (end - start) * self.velocity(x, start, scale)


class Skips(Pipeline):
    """Leaves out the last step."""

    def integrate(self, x: Tensor, steps: int, scale: float) -> Tensor:
        edges = self.edges(steps)
        for k in range(steps - 1):
            x = self.step(x, edges[k], edges[k + 1], scale, False)
        self.velocity(x, edges[-1], scale)
        return x


class Clamped(Pipeline):
    def edges(self, steps: int) -> Tensor:
        q = torch.linspace(1e-3, 1 - 1e-3, steps + 1)
        return torch.sigmoid(torch.special.ndtri(q))


class Interval(Pipeline):
    """Guides in the second half of the path only."""

    def velocity(self, x: Tensor, t: Tensor, scale: float) -> Tensor:
        cond, uncond = self.branches(x, t, True)
        return cond if float(t) < 0.5 else self.combine(cond, uncond, scale)


class StaleHeun(Pipeline):
    def step(self, x: Tensor, start: Tensor, end: Tensor, scale: float, last: bool) -> Tensor:
        dt = end - start
        first = self.velocity(x, start, scale)
        return x + dt * (first + self.velocity(x + dt * first, start, scale)) / 2


class ShortState(Pipeline):
    def step(self, x: Tensor, start: Tensor, end: Tensor, scale: float, last: bool) -> Tensor:
        return super().step(x, start, end, scale, last).bfloat16().float()


class Afterwards(Pipeline):
    def integrate(self, x: Tensor, steps: int, scale: float) -> Tensor:
        return 0.99 * super().integrate(x, steps, scale)


class TestDiagnoses:
    @pytest.mark.parametrize(
        ("pipeline", "code", "spec", "cause"),
        [
            (Left, "FM504", {}, "every evaluation of a step is made at its left edge"),
            (Clamped, "FM504", {}, "quantiles are clamped to [0.001, 1 - 0.001]"),
            (Clamped, "FM505", {}, "8.70% of the path is never integrated, and no number of steps repairs it"),
            (Clamped, "FM505", {}, "quantiles clamped to [0.001, 1 - 0.001] lose as much"),
            (Skips, "FM505", {}, "a step as long as the last one is left out (step 3 of 4)"),
            (Interval, "FM208", {}, "a schedule or an interval of guidance"),
            (StaleHeun, "FM503", {"solver": "heun"}, "the second stage is told the time of the first"),
            (StaleHeun, "FM504", {"solver": "heun"}, "the second stage is told the time of the first"),
            (ShortState, "FM504", {}, "the state is held in bfloat16"),
            (Afterwards, "FM504", {}, "the state is changed after the loop: 0.99 times the declared one"),
        ],
    )
    def test_the_wrong_loop_is_named(self, pipeline: type[Pipeline], code: str, spec: dict[str, Any], cause: str):
        caught(on(pipeline, code, spec=but(**spec)), cause)

    def test_every_field_sees_a_wrong_grid_but_those_that_say_they_are_blind(self) -> None:
        found = {name for name in FIELDS for finding in on(Clamped).findings if f"oracle-{name}-" in finding.where}
        assert found == set(FIELDS)


class TestPremises:
    def test_without_a_view_of_the_final_state_nothing_is_said(self) -> None:
        session = Session(loop_subject(sample=None, decode=None))
        for code in ORACLES:
            silent(session.judge(get_rule(code)), "the final state enters no observed function in its own shape")
