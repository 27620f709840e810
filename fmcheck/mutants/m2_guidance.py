"""FM2: guidance that is swapped, scaled, doubled, forgotten or not switched off."""

from typing import Any

import torch
from torch import Tensor

from fmcheck.mutants.loop import Halves, Loop
from fmcheck.mutants.registry import mutant
from fmcheck.mutants.surgery import bind, wrap
from fmcheck.tiny import TinyFlowModel
from fmcheck.tiny.model import TimeGrid


def _combine(model: TinyFlowModel, formula: Any) -> None:
    wrap(model, "combine", lambda _, cond, uncond, scale: formula(cond.float(), uncond.float(), scale))


# FM201 wrong-null-half


@mutant("FM201")
def null_indicator_inverted(model: TinyFlowModel) -> None:
    """The null indicator is True for conditional rows, also where there is no guidance."""
    Halves(null=lambda null, _: ~null).install(model)


@mutant("FM201")
def null_indicator_never_set(model: TinyFlowModel) -> None:
    """The unconditional half is not marked, so both halves are conditional."""
    Halves(null=lambda null, _: torch.zeros_like(null)).install(model)


@mutant("FM201")
def null_indicator_off_by_one(model: TinyFlowModel) -> None:
    """The marked rows begin one row too late."""
    Halves(null=lambda null, batch: null.roll(1) & null).install(model)


@mutant("FM201")
def null_indicator_left_on_without_guidance(model: TinyFlowModel) -> None:
    """Without guidance the rows are marked unconditional, so the prompt's branch is never asked."""
    Halves(null=lambda null, batch: torch.ones_like(null) if len(null) == batch else null).install(model)


# FM202 halves-differ


@mutant("FM202")
def uncond_half_is_the_initial_state(model: TinyFlowModel) -> None:
    """The doubled batch is built once, and only its conditional half follows the state."""
    built: dict[str, Tensor] = {}

    def remember(run: Any, x: Tensor, *given: Any) -> Any:
        built["x"] = x
        return run(x, *given)

    wrap(model, "integrate", remember)
    Halves(states=lambda x: torch.cat([x, built["x"]])).install(model)


@mutant("FM202")
def uncond_half_is_permuted(model: TinyFlowModel) -> None:
    """The second half holds the rows in another order."""
    Halves(states=lambda x: torch.cat([x, x.flip(0)])).install(model)


@mutant("FM308")
def uncond_half_at_another_time(model: TinyFlowModel) -> None:
    """The second half is told the time of data, whatever the step."""
    end = model.config.log_snr_start + model.config.log_snr_slope

    def late(times: Tensor, batch: int) -> Tensor:
        return torch.where(torch.arange(len(times), device=times.device) < batch, times, end)

    Halves(times=late).install(model)


# FM203 wrong-guidance


@mutant("FM203")
def velocities_swapped(model: TinyFlowModel) -> None:
    """The halves of the output are taken for each other."""
    Halves(split=lambda v, batch: (v[batch:], v[:batch])).install(model)


@mutant("FM203")
def uncond_plus_formula_with_w(model: TinyFlowModel) -> None:
    """`u + w (c - u)` with the scale of `(1 + w) c - w u`."""
    _combine(model, lambda c, u, w: u + w * (c - u))


@mutant("FM203")
def guidance_with_the_wrong_sign(model: TinyFlowModel) -> None:
    """`(1 - w) c + w u`: away from the prompt."""
    _combine(model, lambda c, u, w: (1 - w) * c + w * u)


@mutant("FM203")
def guidance_applied_twice(model: TinyFlowModel) -> None:
    """The guided velocity is guided again."""
    _combine(model, lambda c, u, w: (1 + w) * ((1 + w) * c - w * u) - w * u)


@mutant("FM501")
def guidance_on_half_of_the_channels(model: TinyFlowModel) -> None:
    """Only the first half of the channels is guided, the others are conditional."""

    def formula(c: Tensor, u: Tensor, w: float) -> Tensor:
        guided = (1 + w) * c - w * u
        return torch.cat([guided[:, : c.shape[1] // 2], c[:, c.shape[1] // 2 :]], dim=1)

    _combine(model, formula)


@mutant("FM501")
def guidance_of_the_first_row_for_all(model: TinyFlowModel) -> None:
    """The unconditional velocity of the first row is broadcast to all rows."""
    _combine(model, lambda c, u, w: (1 + w) * c - w * u[:1])


@mutant("FM203")
def guidance_at_the_default_scale(model: TinyFlowModel) -> None:
    """The requested scale is replaced by the default one."""
    _combine(model, lambda c, u, w: 5.5 * c - 4.5 * u)


# FM204 guidance-ignored


@mutant("FM204")
def guidance_never_switched_on(model: TinyFlowModel) -> None:
    """The scale never reaches the loop."""
    Loop(guided=lambda scale: False).install(model)


@mutant("FM204")
def guidance_computed_and_dropped(model: TinyFlowModel) -> None:
    """The guided velocity is computed, then the conditional one is returned."""
    _combine(model, lambda c, u, w: c)


@mutant("FM204")
def null_embedding_ignored(model: TinyFlowModel) -> None:
    """The network does not look at the null indicator, so both branches are one."""
    wrap(
        model.fm_transformers,
        "forward",
        lambda forward, x, times, null: forward(x, times, torch.zeros_like(null)),
    )


# FM205 guidance-not-off


@mutant("FM205")
def scale_zero_means_default(model: TinyFlowModel) -> None:
    """`scale = scale or default`: a scale of 0 becomes the default one."""
    wrap(model, "integrate", lambda run, x, grid, scale: run(x, grid, scale or 4.5))


@mutant("FM205")
def unconditional_at_scale_zero(model: TinyFlowModel) -> None:
    """Guidance always runs, with a formula that gives the unconditional velocity at scale 0."""
    Loop(guided=lambda scale: True).install(model)
    _combine(model, lambda c, u, w: (1 + w) * c - w * u if w else u)


# FM206 guided-initial-state


@mutant("FM206")
def initial_state_scaled_by_guidance(model: TinyFlowModel) -> None:
    """The initial state is multiplied by `1 + w`, as the velocity should be."""
    wrap(model, "integrate", lambda run, x, grid, scale: run((1 + scale) * x, grid, scale))


# Only at scales, numbers of steps or sequences of calls that no default has.


@mutant("FM201")
def null_flags_cached_by_rows(model: TinyFlowModel) -> None:
    """Null flags are cached by the number of rows, which guided B and unguided 2B prompts share."""
    kept: dict[int, Tensor] = {}
    Halves(null=lambda null, _: kept.setdefault(len(null), null)).install(model)


@mutant("FM204")
def last_steps_of_long_runs_unguided(model: TinyFlowModel) -> None:
    """From twenty steps on, the last twentieth of them is made without guidance."""

    def integrate(found: TinyFlowModel, x: Tensor, grid: TimeGrid, scale: float) -> Tensor:
        steps = len(grid.dt)
        for k, (t, dt) in enumerate(zip(grid.t_mid, grid.dt, strict=True)):
            c, u = found.velocities(x, t, guided=scale != 0 and k < steps - steps // 20)
            x = x + dt * (c.float() if u is None else found.combine(c, u, scale))
        return x

    bind(model, "integrate", integrate)


@mutant("FM207")
def negative_scale_switched_off(model: TinyFlowModel) -> None:
    """`if scale > 0` where `if scale != 0` is meant."""
    Loop(guided=lambda scale: scale > 0).install(model)


@mutant("FM207")
def scale_capped_at_ten(model: TinyFlowModel) -> None:
    """Scales above 10 are silently 10."""
    wrap(model, "integrate", lambda run, x, grid, scale: run(x, grid, min(scale, 10.0)))


@mutant("FM207")
def scale_below_one_is_zero(model: TinyFlowModel) -> None:
    """Small scales are rounded to nothing, as an integer argument would do."""
    wrap(model, "integrate", lambda run, x, grid, scale: run(x, grid, 0.0 if abs(scale) < 0.25 else scale))
