"""FM3: time grids, evaluation times and what the network is told about them."""

from typing import Any

import torch
from torch import Tensor

from fmcheck.mutants.loop import Halves, Loop, grid_of, logit_normal, use_edges
from fmcheck.mutants.registry import mutant
from fmcheck.mutants.surgery import bind, wrap
from fmcheck.tiny import TinyFlowModel
from fmcheck.tiny.model import TimeGrid


def _change_grid(model: TinyFlowModel, change: Any) -> None:
    wrap(model, "time_grid", lambda time_grid, *given: change(time_grid(*given)))


# FM300 unreadable-loop


@mutant("FM300")
def third_copy_of_the_batch(model: TinyFlowModel) -> None:
    """The guided batch holds a third copy of the state, whose velocity nobody uses."""
    Halves(
        states=lambda x: torch.cat([x, x, x]),
        split=lambda v, batch: (v[:batch], v[batch : 2 * batch]),
    ).install(model)


# FM301 wrong-step-count


@mutant("FM301")
def last_step_dropped(model: TinyFlowModel) -> None:
    """The loop runs over one step too few."""
    _change_grid(model, lambda grid: TimeGrid(grid.t_edges[:-1], grid.t_mid[:-1], grid.dt[:-1]))


@mutant("FM301")
def one_step_too_many(model: TinyFlowModel) -> None:
    """The grid has K + 2 edges, because K + 1 steps were counted."""
    wrap(model, "time_grid", lambda time_grid, num_steps, *rest: time_grid(num_steps + 1, *rest))


@mutant("FM301")
def two_end_points_for_a_grid(model: TinyFlowModel) -> None:
    """Only the end points are used as grid, so everything happens in a single step."""
    _change_grid(model, lambda grid: grid_of(grid.t_edges[[0, -1]]))


# FM302 time-not-monotone


@mutant("FM302")
def steps_in_reverse_order(model: TinyFlowModel) -> None:
    """The steps are made from the data end to the source end, each with its own length."""
    _change_grid(model, lambda grid: TimeGrid(grid.t_edges, grid.t_mid.flip(0), grid.dt.flip(0)))


@mutant("FM302")
def last_edge_repeated(model: TinyFlowModel) -> None:
    """The final edge is appended as a copy of the last one, so the last step has no length."""
    _change_grid(model, lambda grid: grid_of(torch.cat([grid.t_edges[:-2], grid.t_edges[-1:], grid.t_edges[-1:]])))


# FM303 wrong-grid


@mutant("FM303")
def uniform_grid(model: TinyFlowModel) -> None:
    """The grid is uniform instead of the training times' quantiles."""
    use_edges(model, lambda q: q)


@mutant("FM303")
def wider_grid(model: TinyFlowModel) -> None:
    """The quantiles are those of standard deviation 1.02."""
    use_edges(model, lambda q: logit_normal(q, std=1.02))


@mutant("FM303")
def grid_of_another_mean(model: TinyFlowModel) -> None:
    """The quantiles are those of mean -0.5."""
    use_edges(model, lambda q: logit_normal(q, mean=-0.5))


@mutant("FM303")
def undeclared_shift(model: TinyFlowModel) -> None:
    """The grid is shifted by 3 towards the source, as for large pictures."""
    use_edges(model, lambda q: q / (q + 3 * (1 - q)))


@mutant("FM303")
def length_of_the_next_step(model: TinyFlowModel) -> None:
    """Every step is as long as the next one should be."""
    _change_grid(model, lambda grid: TimeGrid(grid.t_edges, grid.t_mid, grid.dt.roll(-1)))


@mutant("FM303")
def equal_lengths_at_quantile_times(model: TinyFlowModel) -> None:
    """The network is evaluated at the quantile grid's times, but every step has length 1/K."""
    _change_grid(model, lambda grid: grid._replace(dt=torch.full_like(grid.dt, 1 / len(grid.dt))))


@mutant("FM303")
def grid_in_bfloat16(model: TinyFlowModel) -> None:
    """The edges are rounded to bfloat16."""
    _change_grid(model, lambda grid: grid_of(grid.t_edges.bfloat16().float()))


# FM304 wrong-evaluation-point


@mutant("FM304")
def evaluated_at_the_left_edge(model: TinyFlowModel) -> None:
    """The network is evaluated where each step begins, not at its midpoint."""
    _change_grid(model, lambda grid: grid._replace(t_mid=grid.t_edges[:-1]))


@mutant("FM304")
def evaluated_at_the_right_edge(model: TinyFlowModel) -> None:
    """The network is evaluated where each step ends."""
    _change_grid(model, lambda grid: grid._replace(t_mid=grid.t_edges[1:]))


@mutant("FM304")
def evaluated_at_the_middle_quantile(model: TinyFlowModel) -> None:
    """The network is evaluated at the quantile halfway, which is not the midpoint in time."""

    def middle(grid: TimeGrid) -> TimeGrid:
        steps = len(grid.dt)
        return grid._replace(t_mid=logit_normal((torch.arange(steps, device=grid.dt.device) + 0.5) / steps))

    _change_grid(model, middle)


# FM305 uncovered-path


@mutant("FM305")
def clamped_at_a_thousandth(model: TinyFlowModel) -> None:
    """The quantiles are clamped to [1e-3, 1 - 1e-3], which leaves 8.7% of the path out."""
    use_edges(model, lambda q: logit_normal(1e-3 + (1 - 2e-3) * q))


@mutant("FM305")
def clamped_at_a_millionth(model: TinyFlowModel) -> None:
    """The quantiles are clamped to [1e-6, 1 - 1e-6], which leaves 1.7% of the path out."""
    use_edges(model, lambda q: logit_normal(1e-6 + (1 - 2e-6) * q))


@mutant("FM305")
def steps_too_short(model: TinyFlowModel) -> None:
    """Every step is one percent too short."""
    _change_grid(model, lambda grid: grid._replace(dt=0.99 * grid.dt))


# FM306 grid-not-deterministic


@mutant("FM306")
def times_jittered_within_steps(model: TinyFlowModel) -> None:
    """The evaluation time is drawn within each step from the caller's generator."""
    given: dict[str, torch.Generator] = {}

    def jitter(grid: TimeGrid) -> TimeGrid:
        share = torch.rand(len(grid.dt), generator=given["generator"]).to(grid.dt.device)
        return grid._replace(t_mid=grid.t_edges[:-1] + share * grid.dt)

    wrap(model.text_encoder, "forward", lambda forward, *args: (given.update(generator=args[2]), forward(*args))[1])
    _change_grid(model, jitter)


@mutant("FM306")
def random_edges(model: TinyFlowModel) -> None:
    """The inner edges are a sorted draw of training times from the global generator."""
    use_edges(model, lambda q: torch.cat([q[:1], torch.rand(len(q) - 2).sort().values, q[-1:]]))


# FM307 wrong-time-argument


@mutant("FM307")
def log_snr_with_the_wrong_sign(model: TinyFlowModel) -> None:
    """The network is told `8 t - 4`."""
    Halves(times=lambda times, _: -times).install(model)


@mutant("FM307")
def log_snr_of_half_the_range(model: TinyFlowModel) -> None:
    """The network is told `2 - 4 t`."""
    Halves(times=lambda times, _: times / 2).install(model)


@mutant("FM307")
def told_t_for_log_snr(model: TinyFlowModel) -> None:
    """The network is told t itself."""
    Halves(times=lambda times, _: (4 - times) / 8).install(model)


@mutant("FM307")
def told_the_step_number(model: TinyFlowModel) -> None:
    """The network is told `k / K` through the log-SNR, which is a time of a uniform grid."""

    def numbered(time_grid: Any, *given: Any) -> TimeGrid:
        grid = time_grid(*given)
        return grid._replace(t_mid=torch.linspace(0, 1, len(grid.dt) + 1)[:-1].to(grid.dt.device))  # type: ignore[no-any-return]

    wrap(model, "time_grid", numbered)


@mutant("FM307")
def told_the_time_of_the_next_step(model: TinyFlowModel) -> None:
    """Every evaluation is told the time of the next step."""
    _change_grid(model, lambda grid: grid._replace(t_mid=torch.cat([grid.t_mid[1:], grid.t_edges[-1:]])))


# FM308 rows-at-different-times


@mutant("FM308")
def random_time_per_row(model: TinyFlowModel) -> None:
    """Every row gets a time of its own, as in training."""
    Halves(times=lambda times, _: times + torch.rand_like(times) - 0.5).install(model)


@mutant("FM308")
def time_only_in_the_first_row(model: TinyFlowModel) -> None:
    """The time is written into the first row only; the others keep their zeros."""
    Halves(times=lambda times, _: torch.cat([times[:1], torch.zeros_like(times[1:])])).install(model)


# FM309 steps-ignored


@mutant("FM309")
def always_four_steps(model: TinyFlowModel) -> None:
    """The number of steps never reaches the grid."""
    wrap(model, "time_grid", lambda time_grid, num_steps, *rest: time_grid(4, *rest))


@mutant("FM309")
def at_most_four_steps(model: TinyFlowModel) -> None:
    """More than four steps are silently cut to four."""
    wrap(model, "time_grid", lambda time_grid, num_steps, *rest: time_grid(min(num_steps, 4), *rest))


# FM310 time-ignored


@mutant("FM310")
def network_ignores_time(model: TinyFlowModel) -> None:
    """The network embeds a constant instead of the time."""
    wrap(
        model.fm_transformers,
        "forward",
        lambda forward, x, times, null: forward(x, torch.zeros_like(times), null),
    )


@mutant("FM310")
def time_embedding_cached(model: TinyFlowModel) -> None:
    """The embedding of the first time that the network ever saw is kept for all others."""
    kept: dict[str, Tensor] = {}

    wrap(
        model.fm_transformers,
        "condition",
        lambda condition, log_snr, null: condition(kept.setdefault("first", log_snr[:1]).expand(len(null)), null),
    )


@mutant("FM303")
def steps_too_long_in_bfloat16(model: TinyFlowModel) -> None:
    """With a bfloat16 network every step is half a percent too long."""

    def stretch(v: Tensor, dt: Tensor) -> Tensor:
        return 1.005 * dt if model.fm_transformers.dtype == torch.bfloat16 else dt

    Loop(update=lambda x, dt, v: x + stretch(v, dt) * v).install(model)


@mutant("FM203")
def weight_too_small_in_bfloat16(model: TinyFlowModel) -> None:
    """With a bfloat16 network the guidance weight is half a percent too small."""

    def combine(found: TinyFlowModel, cond: Tensor, uncond: Tensor, scale: float) -> Tensor:
        weight = 0.995 * scale if cond.dtype == torch.bfloat16 else scale
        return (1 + weight) * cond.float() - weight * uncond.float()

    bind(model, "combine", combine)
