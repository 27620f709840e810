"""FM3 on hand-written loops whose time is wrong in one place."""

import math
from statistics import NormalDist
from typing import Any

import pytest
import torch
from torch import Tensor

from fmcheck.case import Case
from fmcheck.flow import time_edges
from fmcheck.rules.fm3_explain import wrong_grids
from fmcheck.spec import FlowSpec
from tests.rules.loops import Pipeline, Style, but, caught, clean, failing, judge, outcomes, silent

CODES = [f"FM30{i}" for i in range(10)] + ["FM310"]


def with_edges(change: Any) -> type[Pipeline]:
    class Edges(Pipeline):
        def edges(self, steps: int) -> Tensor:
            return change(super().edges(steps))

    return Edges


def told(change: Any) -> type[Pipeline]:
    """A pipeline that tells the network `change(t)` in place of `t`."""

    class Told(Pipeline):
        def told(self, t: Tensor, rows: int) -> Tensor:
            return super().told(change(t), rows)

    return Told


def argument(change: Any) -> type[Pipeline]:
    """A pipeline that changes the time argument itself."""

    class Argument(Pipeline):
        def told(self, t: Tensor, rows: int) -> Tensor:
            return change(super().told(t, rows))

    return Argument


def euler(at: Any, length: Any = lambda a, b: b - a) -> type[Pipeline]:
    """Euler steps that evaluate at `at(a, b)` and are `length(a, b)` long."""

    class Euler(Pipeline):
        def step(self, x: Tensor, start: Tensor, end: Tensor, scale: float, last: bool) -> Tensor:
            return x + length(start, end) * self.velocity(x, at(start, end), scale)

    return Euler


def middle(a: Tensor, b: Tensor) -> Tensor:
    return (a + b) / 2


class ShortLast(Pipeline):
    def step(self, x: Tensor, start: Tensor, end: Tensor, scale: float, last: bool) -> Tensor:
        y = super().step(x, start, end, scale, last)
        return x + 0.95 * (y - x) if last else y


class StaleTime(Pipeline):
    def step(self, x: Tensor, start: Tensor, end: Tensor, scale: float, last: bool) -> Tensor:
        k1 = self.velocity(x, start, scale)
        k2 = self.velocity(x + (end - start) * k1, start, scale)
        return x + (end - start) * (k1 + k2) / 2


class Dropped(Pipeline):
    def integrate(self, x: Tensor, steps: int, scale: float) -> Tensor:
        edges = self.edges(steps)
        for k in range(steps - 1):
            x = self.step(x, edges[k], edges[k + 1], scale, False)
        return x


class Capped(Pipeline):
    def integrate(self, x: Tensor, steps: int, scale: float) -> Tensor:
        return super().integrate(x, min(steps, 4), scale)


class Preview(Pipeline):
    def integrate(self, x: Tensor, steps: int, scale: float) -> Tensor:
        x = super().integrate(x, steps, scale)
        self.branches(x, torch.tensor(1.0), True)
        return x


class WarmUp(Pipeline):
    def integrate(self, x: Tensor, steps: int, scale: float) -> Tensor:
        self.branches(torch.zeros_like(x), torch.tensor(0.0), True)
        return super().integrate(x, steps, scale)


class Cached(Pipeline):
    """The grid of the first call, stretched to every other number of steps."""

    grid: Tensor | None = None

    def edges(self, steps: int) -> Tensor:
        self.grid = super().edges(steps) if self.grid is None else self.grid
        return torch.nn.functional.interpolate(self.grid[None, None], steps + 1, mode="linear", align_corners=True)[
            0, 0
        ]


class OneRowLate(Pipeline):
    def told(self, t: Tensor, rows: int) -> Tensor:
        value = super().told(t, rows)
        value[-1] += 1e-6
        return value


class Timeless(Pipeline):
    def field(self, x: Tensor, t: Tensor, null: Tensor) -> Tensor:
        return super().field(x, 0 * t, null)


class Untrained(Pipeline):
    def field(self, x: Tensor, t: Tensor, null: Tensor) -> Tensor:
        return torch.zeros_like(x)


class ThreeBranches(Pipeline):
    def branches_of(self, x: Tensor, t: Tensor, guided: bool) -> tuple[Tensor, Tensor | None]:
        null = torch.arange(3 * len(x)) >= len(x)
        cond, _, uncond = self.ask(torch.cat([x, x, x]), t, null).chunk(3)
        return cond, uncond


@pytest.mark.parametrize("solver", ["euler", "midpoint", "heun"])
def test_a_correct_loop_passes(solver: str) -> None:
    for outcome in outcomes(CODES, spec=but(solver=solver)).values():
        clean(outcome)


def quantile_edges(q: list[float]) -> list[float]:
    return [1 / (1 + math.exp(-NormalDist().inv_cdf(p))) for p in q]


LOST = {1e-6: "1.71%", 1e-3: "8.70%"}


@pytest.mark.parametrize("eps", LOST)
def test_a_clamp_is_an_error_unless_declared_and_then_a_warning(eps: float) -> None:
    # tanh(z / 2) is the closed form of sigmoid(z) - sigmoid(-z).
    lost = 1 - math.tanh(-NormalDist().inv_cdf(eps) / 2)
    assert f"{lost:.2%}" == LOST[eps]

    class Clamped(Pipeline):
        def edges(self, steps: int) -> Tensor:
            return torch.tensor(quantile_edges(torch.linspace(eps, 1 - eps, steps + 1, dtype=torch.float64).tolist()))

    found = failing(Clamped)
    assert set(found) == {"FM303", "FM305"}
    caught(found["FM305"], f"{lost:.2%} of the path is never integrated", f"clamped to [{eps:g}, 1 - {eps:g}]")
    declared = judge("FM305", Clamped, spec=but(grid_clamp=eps))
    assert declared.status == "passed"
    assert {f.severity for f in declared.findings} == {"warning"}
    assert f"leaves {lost:.2%} of the path out" in declared.findings[0].message


GRIDS = [
    (lambda e: torch.linspace(0, 1, len(e)), "the grid is uniform"),
    (lambda e: e.bfloat16().float(), "edges of the grid are rounded to bfloat16"),
    (lambda e: torch.sigmoid(1.3 * torch.logit(e)), None),
    (lambda e: 1.0001 * e, "every step is 1.0001 times as long"),
    (lambda e: 0.9 * e, "every step is 0.9 times as long"),
]


@pytest.mark.parametrize(("change", "cause"), GRIDS)
def test_a_wrong_grid_is_read_from_the_state(change: Any, cause: str | None) -> None:
    caught(judge("FM303", with_edges(change)), *([cause] if cause else []), "the step has length")


def test_only_the_last_step_is_short() -> None:
    found = failing(ShortLast)
    assert set(found) == {"FM303", "FM305"}
    caught(found["FM303"], "only the last step is wrong: it is 0.95 times as long")


def test_rounded_step_sizes_are_named() -> None:
    loop = euler(middle, lambda a, b: (b - a).bfloat16().float())
    caught(judge("FM303", loop), "the step sizes are rounded to bfloat16")


def test_a_cached_grid_shows_at_other_step_counts() -> None:
    caught(judge("FM303", Cached), "run more-steps")


POINTS = [
    (lambda a, b: b, "at the right edge"),
    (lambda a, b: a, "at the left edge"),
    (lambda a, b: (a + b) / 2 + 1e-4, "every time is 0.0001 late"),
]


@pytest.mark.parametrize(("at", "cause"), POINTS)
def test_a_wrong_point_inside_the_step_is_named(at: Any, cause: str) -> None:
    found = failing(euler(at))
    assert set(found) == {"FM304"}
    caught(found["FM304"], cause)


def test_a_stale_time_in_the_second_stage_is_named() -> None:
    found = failing(StaleTime, spec=but(solver="heun"))
    assert set(found) == {"FM304"}
    caught(found["FM304"], "the second stage is evaluated at the time of the first")


ARGUMENTS = [
    (told(lambda t: 1 - t), "log_snr", "the network is told the argument of 1 - t"),
    (argument(lambda a: -a), "log_snr", "FM307"),
    (argument(lambda a: a / 2), "log_snr", "the argument is halved"),
    (argument(lambda a: a / 1000), "timestep", "the network is told sigma = 1 - t"),
    (argument(lambda a: torch.zeros_like(a)), "log_snr", "the same value 0 in every step"),
]


@pytest.mark.parametrize(("loop", "kind", "cause"), ARGUMENTS)
def test_a_wrong_time_argument_is_named(loop: type[Pipeline], kind: str, cause: str) -> None:
    caught(judge("FM307", loop, spec=but(time_argument=kind)), cause)


def test_rounded_arguments_are_told_apart() -> None:
    caught(judge("FM304", argument(lambda a: a.bfloat16().float())), "rounded to bfloat16")
    whole = but(time_argument="timestep")
    caught(judge("FM304", argument(lambda a: a.round()), spec=whole), "rounded to a whole number")
    caught(judge("FM304", argument(lambda a: a.long()), spec=whole), "cut to a whole number")


def test_a_dropped_step_and_an_ignored_count_are_counted() -> None:
    caught(judge("FM301", Dropped), "3 evaluations for 4 steps of euler, expected 4", "edges are counted as steps")
    caught(judge("FM309", Capped), "1 -> 1, 4 -> 4, 8 -> 4")


def test_calls_that_no_step_uses_are_recognised() -> None:
    caught(judge("FM301", Preview), "once more after the last step (a preview?)")
    caught(judge("FM301", WarmUp), "once before the loop (a warm-up?)")


def test_another_solver_than_declared_is_recognised() -> None:
    class Heun(Pipeline):
        def step(self, x: Tensor, start: Tensor, end: Tensor, scale: float, last: bool) -> Tensor:
            k1 = self.velocity(x, start, scale)
            return x + (end - start) * (k1 + self.velocity(x + (end - start) * k1, end, scale)) / 2

    caught(judge("FM301", Heun), "two evaluations a step: another solver than declared")


def test_random_times_are_not_deterministic() -> None:
    class Random(Pipeline):
        def step(self, x: Tensor, start: Tensor, end: Tensor, scale: float, last: bool) -> Tensor:
            at = start + (end - start) * torch.rand((), generator=self.generator)
            return x + (end - start) * self.velocity(x, at, scale)

        def text(self, prompts: list[str], generator: torch.Generator, size: tuple[int, int, int]) -> Tensor:
            self.generator = generator
            return super().text(prompts, generator, size)

    caught(judge("FM306", Random), "times are drawn at random")


def test_one_row_at_another_time_is_seen() -> None:
    found = failing(OneRowLate)
    assert set(found) == {"FM308"}


def test_a_network_that_ignores_time_is_seen_and_an_untrained_one_is_not_judged() -> None:
    caught(judge("FM310", Timeless), "the network ignores its time argument")
    for code in ("FM303", "FM305", "FM310"):
        assert judge(code, Untrained).status == "not informative"
    silent(judge("FM310", Untrained), "every velocity is zero")


def test_backward_and_repeated_times() -> None:
    caught(judge("FM302", told(lambda t: 1 - t)), "time runs backwards")
    caught(judge("FM302", with_edges(lambda e: e.flip(0))), "expected > 0")
    caught(judge("FM302", argument(lambda a: torch.full_like(a, 2.0))), "two steps share one time")


def test_three_branches_are_unreadable_and_say_why() -> None:
    found = failing(ThreeBranches)
    assert set(found) == {"FM300"}
    caught(found["FM300"], "3 guidance branches? Only two can be declared", "rules about the flow cannot judge")


@pytest.mark.parametrize("kind", ["log_snr", "t", "sigma", "timestep"])
@pytest.mark.parametrize("point", ["midpoint", "left"])
def test_declared_conventions_pass(kind: str, point: str) -> None:
    spec = but(time_argument=kind, evaluation_point=point, grid="shifted", grid_shift=3.0)
    style, case = Style(scalar_time=True), Case(height=8, width=12)
    for outcome in outcomes(CODES, spec=spec, style=style, case=case).values():
        clean(outcome)


@pytest.mark.parametrize(
    "spec",
    [
        FlowSpec(grid="shifted", grid_shift=3.0, grid_last_sigma=0.001),
        FlowSpec(grid="shifted", grid_shift=3.0, grid_terminal=0.1),
        FlowSpec(grid="uniform", grid_last_sigma=0.001),
        FlowSpec(grid="declared", grid_edges=(0.0, 0.25, 1.0)),
    ],
)
def test_other_grids_are_tried_whatever_the_declared_one(spec):
    for other, text in wrong_grids(spec):
        assert len(time_edges(2, other)) == 3, text
