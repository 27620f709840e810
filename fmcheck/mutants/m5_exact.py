"""FM503 to FM505: loops that a field with a known flow tells from the declared one."""

from typing import Any

import torch
from torch import Tensor

from fmcheck.mutants.loop import Loop, Step, grid_of, logit_normal, use_edges, use_solver
from fmcheck.mutants.registry import mutant, subject_mutant
from fmcheck.mutants.remodel import remodel
from fmcheck.mutants.surgery import bind, wrap
from fmcheck.subject import Subject
from fmcheck.tiny import TinyFlowModel
from fmcheck.tiny.model import TimeGrid

# FM504 off-exact-flow: the loop ends elsewhere


def _times(model: TinyFlowModel, times: Any) -> None:
    def changed(time_grid: Any, *given: Any) -> TimeGrid:
        grid = time_grid(*given)
        return grid._replace(t_mid=times(grid))  # type: ignore[no-any-return]

    wrap(model, "time_grid", changed)


@mutant("FM504")
def evaluated_a_quarter_into_the_step(model: TinyFlowModel) -> None:
    """The network is evaluated a quarter into every step, not at its midpoint."""
    _times(model, lambda grid: grid.t_edges[:-1] + grid.dt / 4)


@mutant("FM504")
def evaluated_at_the_middle_of_the_path(model: TinyFlowModel) -> None:
    """The network is evaluated at t = 1/2 in every step."""
    _times(model, lambda grid: torch.full_like(grid.t_mid, 0.5))


@mutant("FM504")
def evaluated_at_the_time_before(model: TinyFlowModel) -> None:
    """Every step but the first is evaluated at the time of the one before."""
    _times(model, lambda grid: torch.cat([grid.t_mid[:1], grid.t_mid[:-1]]))


@mutant("FM504")
def evaluated_at_mirrored_times(model: TinyFlowModel) -> None:
    """The network is evaluated at 1 - t."""
    _times(model, lambda grid: 1 - grid.t_mid)


@mutant("FM504")
def midpoints_in_bfloat16(model: TinyFlowModel) -> None:
    """The evaluation times are rounded to bfloat16."""
    _times(model, lambda grid: grid.t_mid.bfloat16().float())


@mutant("FM504")
def steps_between_midpoints(model: TinyFlowModel) -> None:
    """The steps lead from one evaluation time to the next, and the last one to 1."""

    def steps(grid: TimeGrid) -> Any:
        ends = torch.cat([grid.t_mid[1:], torch.ones_like(grid.t_mid[:1])])
        return zip(grid.t_mid, ends - grid.t_mid, strict=True)

    Loop(steps=steps).install(model)


@mutant("FM504")
def steps_a_thousandth_too_long(model: TinyFlowModel) -> None:
    """Every velocity is a thousandth too large."""
    Loop(velocity=lambda v, _: 1.001 * v).install(model)


@mutant("FM504")
def two_step_method_undeclared(model: TinyFlowModel) -> None:
    """Adams-Bashforth of two steps where Euler is declared: `1.5 v - 0.5 v_before`."""
    before: list[Tensor] = []

    def velocity(v: Tensor, made: list[Step]) -> Tensor:
        used = 1.5 * v - 0.5 * before[-1] if made else v
        before[:] = [v]
        return used

    Loop(velocity=velocity).install(model)


@mutant("FM504")
def channels_moved_on_by_one(model: TinyFlowModel) -> None:
    """The velocity of every channel moves the next one."""
    Loop(velocity=lambda v, _: v.roll(1, dims=1)).install(model)


@mutant("FM504")
def state_scaled_after_the_loop(model: TinyFlowModel) -> None:
    """The final state is a thousandth too large."""
    Loop(finish=lambda x, _: 1.001 * x).install(model)


@mutant("FM504")
def start_added_again_at_the_end(model: TinyFlowModel) -> None:
    """A trace of the initial state is added after the last step."""
    Loop(finish=lambda x, made: x + 0.01 * made[0].start).install(model)


@mutant("FM504")
def last_step_backwards(model: TinyFlowModel) -> None:
    """The last step goes back along the velocity."""

    def steps(grid: TimeGrid) -> Any:
        return zip(grid.t_mid, torch.cat([grid.dt[:-1], -grid.dt[-1:]]), strict=True)

    Loop(steps=steps).install(model)


@mutant("FM504")
def state_damped(model: TinyFlowModel) -> None:
    """The state is damped a little in every step, by a term beside the velocity."""
    Loop(update=lambda x, dt, v: x + dt * (v - 0.01 * x)).install(model)


@subject_mutant("FM504")
def shift_applied_twice(subject: Subject) -> Subject:
    """The grid is shifted by 3 twice where a shift of 3 is declared."""

    def shifted(sigma: Tensor) -> Tensor:
        return 3 * sigma / (1 + 2 * sigma)

    def change(model: TinyFlowModel) -> None:
        use_edges(model, lambda q: 1 - shifted(shifted(1 - q)))

    return remodel(subject, "shift_applied_twice", change, grid="shifted", grid_shift=3.0)


@subject_mutant("FM504")
def shift_in_the_other_direction(subject: Subject) -> Subject:
    """The grid is shifted by 1/3 where a shift of 3 is declared."""

    def change(model: TinyFlowModel) -> None:
        use_edges(model, lambda q: 1 - (1 - q) / (1 + 2 * q))

    return remodel(subject, "shift_in_the_other_direction", change, grid="shifted", grid_shift=3.0)


# FM503 wrong-order: second-order methods that are not


def _second_order(subject: Subject, name: str, solver: str, step: Any) -> Subject:
    return remodel(subject, name, lambda model: use_solver(model, step), solver=solver)


@subject_mutant("FM503")
def heun_told_a_stale_time(subject: Subject) -> Subject:
    """Heun's second stage is told the time of the first."""

    def step(field: Any, x: Tensor, start: Tensor, end: Tensor) -> Any:
        first = field(x, start)
        return x + (end - start) * 0.5 * (first + field(x + (end - start) * first, start))

    return _second_order(subject, "heun_told_a_stale_time", "heun", step)


@subject_mutant("FM503")
def heun_at_a_stale_state(subject: Subject) -> Subject:
    """Heun's second stage is evaluated at the state of the first."""

    def step(field: Any, x: Tensor, start: Tensor, end: Tensor) -> Any:
        return x + (end - start) * 0.5 * (field(x, start) + field(x, end))

    return _second_order(subject, "heun_at_a_stale_state", "heun", step)


@subject_mutant("FM503")
def heun_keeps_its_predictor(subject: Subject) -> Subject:
    """Heun's correction is computed and thrown away."""

    def step(field: Any, x: Tensor, start: Tensor, end: Tensor) -> Any:
        predicted = x + (end - start) * field(x, start)
        field(predicted, end)
        return predicted

    return _second_order(subject, "heun_keeps_its_predictor", "heun", step)


@subject_mutant("FM503")
def midpoint_moved_by_the_first_stage(subject: Subject) -> Subject:
    """The midpoint method takes its step with the velocity of the left edge."""

    def step(field: Any, x: Tensor, start: Tensor, end: Tensor) -> Any:
        dt = end - start
        first = field(x, start)
        field(x + dt / 2 * first, start + dt / 2)
        return x + dt * first

    return _second_order(subject, "midpoint_moved_by_the_first_stage", "midpoint", step)


@subject_mutant("FM503")
def midpoint_at_a_stale_state(subject: Subject) -> Subject:
    """The midpoint method's second stage is evaluated at the state of the left edge."""

    def step(field: Any, x: Tensor, start: Tensor, end: Tensor) -> Any:
        field(x, start)
        return x + (end - start) * field(x, start + (end - start) / 2)

    return _second_order(subject, "midpoint_at_a_stale_state", "midpoint", step)


@mutant("FM503")
def error_that_stays(model: TinyFlowModel) -> None:
    """The first tenth of the path is skipped, whatever the number of steps."""

    def skipped(time_grid: Any, *given: Any) -> TimeGrid:
        return grid_of(0.1 + 0.9 * time_grid(*given).t_edges)

    wrap(model, "time_grid", skipped)


# FM505 never-arrives: parts of the path that are not integrated


@mutant("FM505")
def clamped_where_steps_are_many(model: TinyFlowModel) -> None:
    """From ten steps on the quantiles are clamped at 1e-4."""
    use_edges(model, lambda q: logit_normal(q.clamp(1e-4, 1 - 1e-4) if len(q) > 10 else q))


@mutant("FM505")
def grid_ends_early(model: TinyFlowModel) -> None:
    """The grid ends at t = 0.999, to keep away from the singularity of another schedule."""
    use_edges(model, lambda q: 0.999 * logit_normal(q))


@mutant("FM505")
def grid_begins_late(model: TinyFlowModel) -> None:
    """The grid begins at t = 0.02."""
    use_edges(model, lambda q: 0.02 + 0.98 * logit_normal(q))


@mutant("FM505")
def steps_counted_with_the_end(model: TinyFlowModel) -> None:
    """Every step is divided by K + 1 in place of K parts."""

    def steps(grid: TimeGrid) -> Any:
        count = len(grid.dt)
        return zip(grid.t_mid, grid.dt * count / (count + 1), strict=True)

    Loop(steps=steps).install(model)


@mutant("FM505")
def first_step_forgotten(model: TinyFlowModel) -> None:
    """The first step is evaluated and not made."""

    def velocity(v: Tensor, made: list[Step]) -> Tensor:
        return v if made else torch.zeros_like(v)

    Loop(velocity=velocity).install(model)


@mutant("FM505")
def last_step_repeated_after_the_loop(model: TinyFlowModel) -> None:
    """The last step is made once more after the loop, with the velocity at hand."""
    Loop(finish=lambda x, made: x + made[-1].dt * made[-1].velocity).install(model)


@mutant("FM505")
def edges_of_one_more_step(model: TinyFlowModel) -> None:
    """The edges are those of K + 1 steps, and the last one is cut off."""

    def time_grid(_: TinyFlowModel, num_steps: int, device: torch.device | str = "cpu") -> TimeGrid:
        edges = logit_normal(torch.linspace(0.0, 1.0, num_steps + 2))[:-1]
        return TimeGrid(*(part.to(device) for part in grid_of(edges)))

    bind(model, "time_grid", time_grid)
