"""FM506 to FM508 and FM311: digits lost in the state, types nobody asked for, overflow, times that merge."""

from typing import Any

import torch
from torch import Tensor

from fmcheck.mutants.loop import Loop
from fmcheck.mutants.registry import mutant, subject_mutant
from fmcheck.mutants.remodel import remodel
from fmcheck.mutants.surgery import bind, wrap
from fmcheck.subject import Subject
from fmcheck.tiny import TinyFlowModel

# FM506 digits-lost


@mutant("FM506")
def state_in_bfloat16_between_steps(model: TinyFlowModel) -> None:
    """The state goes through bfloat16 after every step."""
    Loop(update=lambda x, dt, v: (x + dt * v).bfloat16().float()).install(model)


@mutant("FM506")
def small_increments_skipped(model: TinyFlowModel) -> None:
    """Increments below a thousandth are taken for zero."""
    Loop(update=lambda x, dt, v: x + torch.where((dt * v).abs() < 1e-3, 0.0, dt * v)).install(model)


@mutant("FM506")
def state_cut_off_to_twelve_bits(model: TinyFlowModel) -> None:
    """The state is cut off towards zero at 12 bits behind the point."""
    Loop(update=lambda x, dt, v: torch.trunc((x + dt * v) * 4096) / 4096).install(model)


@mutant("FM506")
def compensation_with_the_wrong_sign(model: TinyFlowModel) -> None:
    """Kahan's compensation is added where it must be subtracted, on increments in float16."""

    def update(x: Tensor, dt: Tensor, v: Tensor) -> Tensor:
        step = (dt * v).half().float()
        return x + step - (dt * v - step)

    Loop(update=update).install(model)


# FM507 promoted-to-float64


@mutant("FM507")
def grid_in_float64(model: TinyFlowModel) -> None:
    """The step sizes are float64 tensors of one element, which promote the state."""
    Loop(update=lambda x, dt, v: x + dt.double().reshape(1, 1, 1, 1) * v).install(model)


@mutant("FM507")
def guidance_scale_in_float64(model: TinyFlowModel) -> None:
    """The guidance scale is a float64 tensor, which promotes the velocity and then the state."""

    def combine(_: TinyFlowModel, c: Tensor, u: Tensor, w: float) -> Tensor:
        scale = torch.full((len(c), 1, 1, 1), w, dtype=torch.float64, device=c.device)
        return (1 + scale) * c - scale * u

    bind(model, "combine", combine)


# FM508 guidance-overflows


def _in_float16(subject: Subject, name: str, combine: Any) -> Subject:
    changed = remodel(subject, name, lambda model: bind(model, "combine", combine))
    return changed.but(dtypes=(*subject.dtypes, "float16"))


@subject_mutant("FM508")
def combined_in_float16(subject: Subject) -> Subject:
    """The velocities are combined in the network's float16 and cast up afterwards."""
    return _in_float16(subject, "combined_in_float16", lambda _, c, u, w: ((1 + w) * c - w * u).float())


@subject_mutant("FM508")
def difference_scaled_in_float16(subject: Subject) -> Subject:
    """The difference of the branches is scaled in the network's float16."""
    return _in_float16(subject, "difference_scaled_in_float16", lambda _, c, u, w: c.float() + (w * (c - u)).float())


# FM311 times-merge


@mutant("FM311")
def log_snr_cast_to_the_networks_dtype(model: TinyFlowModel) -> None:
    """The log-SNR is cast to the network's dtype before its waves are taken; it shows in bfloat16 only."""
    network = model.fm_transformers

    def condition(original: Any, log_snr: Tensor, null: Tensor) -> Any:
        return original(log_snr.to(network.dtype).float(), null)

    wrap(network, "condition", condition)


@mutant("FM311")
def log_snr_in_bfloat16(model: TinyFlowModel) -> None:
    """The log-SNR goes through bfloat16 in the network whatever its dtype is."""
    wrap(model.fm_transformers, "condition", lambda original, told, null: original(told.bfloat16().float(), null))


@mutant("FM311")
def time_looked_up_in_a_table(model: TinyFlowModel) -> None:
    """The log-SNR is rounded to one of 256 levels, as for a table of embeddings."""
    wrap(model.fm_transformers, "condition", lambda original, told, null: original((told * 32).round() / 32, null))


@mutant("FM311")
def time_embedded_in_percent(model: TinyFlowModel) -> None:
    """Whole percents of the path are embedded."""

    def condition(original: Any, told: Tensor, null: Tensor) -> Any:
        return original(4 - 8 * ((4 - told) / 8 * 100).floor() / 100, null)

    wrap(model.fm_transformers, "condition", condition)
