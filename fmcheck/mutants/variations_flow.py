"""Correct variations of the flow: other guidance, grids, solvers, time arguments and predictions, all declared."""

from typing import Any

import torch
from torch import Tensor

from fmcheck.mutants.loop import Halves, Loop, logit_normal, use_edges, use_solver
from fmcheck.mutants.registry import variation
from fmcheck.mutants.remodel import remodel
from fmcheck.mutants.surgery import bind, wrap
from fmcheck.subject import Subject
from fmcheck.tiny import TinyFlowModel
from fmcheck.tiny.model import TimeGrid

# Guidance


@variation()
def uncond_half_first(subject: Subject) -> Subject:
    """The unconditional half of the doubled batch comes first."""
    halves = Halves(
        null=lambda null, batch: ~null if len(null) > batch else null,
        split=lambda v, batch: (v[batch:], v[:batch]),
    )
    return remodel(subject, "uncond_half_first", halves.install, guidance_layout="uncond_first")


def _one_by_one(model: TinyFlowModel, *, uncond_first: bool) -> None:
    def branch(x: Tensor, t: Tensor, null: bool) -> Any:
        flags = torch.full((len(x),), null, device=x.device)
        return model.fm_transformers(x, model.log_snr(t).reshape(1).repeat(len(x)), flags)

    def velocities(_: TinyFlowModel, x: Tensor, t: Tensor, guided: bool) -> tuple[Tensor, Tensor | None]:
        if not guided:
            return branch(x, t, False), None
        found = {null: branch(x, t, null) for null in ((True, False) if uncond_first else (False, True))}
        return found[False], found[True]

    bind(model, "velocities", velocities)


@variation()
def two_guidance_calls(subject: Subject) -> Subject:
    """The branches are evaluated in two calls of B rows, the conditional one first."""

    def change(model: TinyFlowModel) -> None:
        _one_by_one(model, uncond_first=False)

    return remodel(subject, "two_guidance_calls", change, guidance_layout="separate")


@variation()
def two_guidance_calls_uncond_first(subject: Subject) -> Subject:
    """The branches are evaluated in two calls of B rows, the unconditional one first."""

    def change(model: TinyFlowModel) -> None:
        _one_by_one(model, uncond_first=True)

    return remodel(subject, "two_guidance_calls_uncond_first", change, guidance_layout="separate_uncond_first")


@variation()
def uncond_plus_formula(subject: Subject) -> Subject:
    """Guidance is `u + s (c - u)`, with `s = 1 + w`."""

    def change(model: TinyFlowModel) -> None:
        wrap(model, "combine", lambda _, c, u, s: u.float() + s * (c.float() - u.float()))
        Loop(guided=lambda s: s != 1).install(model)

    scaled = subject.but(case=subject.case.but(guidance_scale=1 + subject.case.guidance_scale))
    return remodel(scaled, "uncond_plus_formula", change, guidance_formula="uncond_plus")


@variation()
def guidance_off_below_zero(subject: Subject) -> Subject:
    """Scales of 0 and below mean no guidance."""
    return remodel(subject, "guidance_off_below_zero", Loop(guided=lambda w: w > 0).install, guidance_from=0.0)


@variation()
def guidance_computed_at_the_neutral_scale(subject: Subject) -> Subject:
    """Both branches are evaluated at the neutral scale too, where the formula leaves the conditional one."""
    return remodel(subject, "guidance_computed_at_the_neutral_scale", Loop(guided=lambda w: True).install)


@variation()
def network_called_in_pairs(subject: Subject) -> Subject:
    """The doubled batch is cut into network calls of two rows."""

    def change(model: TinyFlowModel) -> None:
        def paired(_: TinyFlowModel, x: Tensor, t: Tensor, guided: bool) -> tuple[Tensor, Tensor | None]:
            rows = torch.cat([x, x]) if guided else x
            null = torch.arange(len(rows), device=x.device) >= len(x)
            times = model.log_snr(t).reshape(1).repeat(len(rows))
            pairs = (len(rows) + 1) // 2
            parts = zip(rows.chunk(pairs), times.chunk(pairs), null.chunk(pairs), strict=True)
            v = torch.cat([model.fm_transformers(*part) for part in parts])
            return (v[: len(x)], v[len(x) :]) if guided else (v, None)

        bind(model, "velocities", paired)

    return remodel(subject, "network_called_in_pairs", change)


@variation()
def null_flag_means_conditional(subject: Subject) -> Subject:
    """A True flag marks the conditional rows."""

    def change(model: TinyFlowModel) -> None:
        network = model.fm_transformers
        wrap(network, "forward", lambda forward, x, times, flags: forward(x, times, ~flags))
        network.register_forward_pre_hook(lambda _, given: (*given[:2], ~given[2]))

    return remodel(subject, "null_flag_means_conditional", change, null_means_unconditional=False)


# Grid and solver


@variation()
def uniform_grid_declared(subject: Subject) -> Subject:
    """The grid is uniform, and the spec says so."""
    return remodel(subject, "uniform_grid_declared", lambda model: use_edges(model, lambda q: q), grid="uniform")


@variation()
def shifted_grid_declared(subject: Subject) -> Subject:
    """The grid is shifted by 3 in sigma, and the spec says so."""

    def edges(q: Tensor) -> Tensor:
        sigma = 1 - q
        return 1 - 3 * sigma / (1 + 2 * sigma)

    def change(model: TinyFlowModel) -> None:
        use_edges(model, edges)

    return remodel(subject, "shifted_grid_declared", change, grid="shifted", grid_shift=3.0)


@variation(warns=("FM305",))
def clamp_declared(subject: Subject) -> Subject:
    """The quantiles are clamped at 1e-3, and the spec says so: allowed, but 8.7% of the path are not integrated."""

    def change(model: TinyFlowModel) -> None:
        use_edges(model, lambda q: logit_normal(torch.linspace(1e-3, 1 - 1e-3, len(q))))

    return remodel(subject, "clamp_declared", change, grid_clamp=1e-3)


@variation()
def left_edge_declared(subject: Subject) -> Subject:
    """Euler steps evaluate the network where they begin, and the spec says so."""

    def change(model: TinyFlowModel) -> None:
        def left(time_grid: Any, *given: Any) -> TimeGrid:
            grid = time_grid(*given)
            return grid._replace(t_mid=grid.t_edges[:-1])  # type: ignore[no-any-return]

        wrap(model, "time_grid", left)

    return remodel(subject, "left_edge_declared", change, evaluation_point="left")


@variation()
def heun_declared(subject: Subject) -> Subject:
    """Heun's method: the mean of the velocities at both ends of a step."""

    def step(field: Any, x: Tensor, start: Tensor, end: Tensor) -> Any:
        first = field(x, start)
        second = field(x + (end - start) * first, end)
        return x + (end - start) * 0.5 * (first + second)

    return remodel(subject, "heun_declared", lambda model: use_solver(model, step), solver="heun")


@variation()
def midpoint_declared(subject: Subject) -> Subject:
    """The explicit midpoint method: a half step, then the whole step with the velocity found there."""

    def step(field: Any, x: Tensor, start: Tensor, end: Tensor) -> Any:
        half = (end - start) / 2
        return x + 2 * half * field(x + half * field(x, start), start + half)

    return remodel(subject, "midpoint_declared", lambda model: use_solver(model, step), solver="midpoint")


# What the network is told and what it returns


def _told(model: TinyFlowModel, argument: Any, flow_time: Any) -> None:
    """Tell the network `argument(t)`; it turns it back into the log-SNR that it was made for."""
    clean = model.log_snr
    wrap(
        model.fm_transformers,
        "forward",
        lambda forward, x, told, null: forward(x, clean(flow_time(told)), null),
    )
    wrap(model, "log_snr", lambda _, t: argument(t.float()))


@variation()
def network_told_t(subject: Subject) -> Subject:
    """The network is told the flow time itself."""

    def change(model: TinyFlowModel) -> None:
        _told(model, lambda t: t, lambda told: told)

    return remodel(subject, "network_told_t", change, time_argument="t")


@variation()
def network_told_sigma(subject: Subject) -> Subject:
    """The network is told `sigma = 1 - t`."""

    def change(model: TinyFlowModel) -> None:
        _told(model, lambda t: 1 - t, lambda told: 1 - told)

    return remodel(subject, "network_told_sigma", change, time_argument="sigma")


@variation()
def network_told_timestep(subject: Subject) -> Subject:
    """The network is told `1000 sigma`."""

    def change(model: TinyFlowModel) -> None:
        _told(model, lambda t: 1000 * (1 - t), lambda told: 1 - told / 1000)

    return remodel(subject, "network_told_timestep", change, time_argument="timestep")


@variation()
def network_returns_reverse_velocity(subject: Subject) -> Subject:
    """The network returns noise minus data, and the loop turns it round."""

    def change(model: TinyFlowModel) -> None:
        wrap(model.fm_transformers, "forward", lambda forward, *given: -forward(*given))
        wrap(
            model,
            "velocities",
            lambda velocities, *given, **named: tuple(None if v is None else -v for v in velocities(*given, **named)),
        )
        wrap(model, "velocity_target", lambda target, *given: -target(*given))

    return remodel(subject, "network_returns_reverse_velocity", change, prediction="reverse_velocity")


@variation()
def network_returns_the_data_end(subject: Subject) -> Subject:
    """The network predicts `x1`, from which the loop recovers the velocity `(x1 - r x) / (1 - r t)`."""
    ratio = 1 - subject.spec.sigma_min
    offset, slope = subject.spec.time_map

    def predicted(forward: Any, x: Tensor, log_snr: Tensor, null: Tensor) -> Any:
        t = ((log_snr - offset) / slope)[:, None, None, None]
        return ratio * x.float() + (1 - ratio * t) * forward(x, log_snr, null).float()

    def recovered(velocities: Any, x: Tensor, t: Tensor, guided: bool) -> tuple[Tensor, Tensor | None]:
        ends = velocities(x, t, guided=guided)
        cond, uncond = (None if end is None else (end - ratio * x) / (1 - ratio * t) for end in ends)
        assert cond is not None
        return cond, uncond

    def change(model: TinyFlowModel) -> None:
        wrap(model.fm_transformers, "forward", predicted)
        wrap(model, "velocities", recovered)
        wrap(model, "velocity_target", lambda _, x0, x1: x1)

    return remodel(subject, "network_returns_the_data_end", change, prediction="x1")
