"""FM5: updates that are no combination of the velocities, and states that lose their precision."""

import torch
from torch import Tensor

from fmcheck.mutants.loop import Loop, Step
from fmcheck.mutants.registry import mutant
from fmcheck.tiny import TinyFlowModel

# FM501 wrong-update


@mutant("FM501")
def state_clipped(model: TinyFlowModel) -> None:
    """The state is clamped to [-1, 1] after every step, as if it were a picture."""
    Loop(update=lambda x, dt, v: (x + dt * v).clamp(-1, 1)).install(model)


@mutant("FM501")
def state_renormalised_over_the_batch(model: TinyFlowModel) -> None:
    """The state is divided by its deviation over the whole batch after every step."""
    Loop(update=lambda x, dt, v: (y := x + dt * v) / y.std()).install(model)


@mutant("FM501")
def state_decays(model: TinyFlowModel) -> None:
    """The update is `(1 - dt) x + dt v`, the interpolation towards a data prediction."""
    Loop(update=lambda x, dt, v: (1 - dt) * x + dt * v).install(model)


@mutant("FM501")
def velocity_of_the_neighbour(model: TinyFlowModel) -> None:
    """Every row moves along the velocity of the row before it."""
    Loop(velocity=lambda v, _: v.roll(1, dims=0)).install(model)


@mutant("FM501")
def velocity_flipped(model: TinyFlowModel) -> None:
    """The velocity is mirrored from left to right before it is added."""
    Loop(velocity=lambda v, _: v.flip(-1)).install(model)


@mutant("FM501")
def velocity_thresholded(model: TinyFlowModel) -> None:
    """Large components of the combined velocity are cut off."""
    Loop(velocity=lambda v, _: v.clamp(-2, 2)).install(model)


@mutant("FM501")
def velocity_with_momentum(model: TinyFlowModel) -> None:
    """The velocity is averaged with that of the step before."""

    def averaged(v: Tensor, made: list[Step]) -> Tensor:
        return 0.8 * v + 0.2 * made[-1].velocity if made else v

    Loop(velocity=averaged).install(model)


@mutant("FM501")
def weak_channels_skipped(model: TinyFlowModel) -> None:
    """Only the first 31 of 32 channels are integrated."""
    Loop(update=lambda x, dt, v: torch.cat([(x + dt * v)[:, :-1], x[:, -1:]], dim=1)).install(model)


# FM502 low-precision-state


@mutant("FM502")
def state_in_bfloat16(model: TinyFlowModel) -> None:
    """The state is bfloat16, where the small steps at both ends vanish."""
    Loop(
        start=lambda x: x.bfloat16(),
        update=lambda x, dt, v: (x + dt * v).bfloat16(),
        finish=lambda x, _: x.float(),
    ).install(model)


@mutant("FM502")
def state_rounded_through_float16(model: TinyFlowModel) -> None:
    """The state is float32 again, but its values have been through float16."""
    Loop(update=lambda x, dt, v: (x + dt * v).half().float()).install(model)


@mutant("FM502")
def state_follows_the_network(model: TinyFlowModel) -> None:
    """The state takes the dtype of the network: right in float32, lossy in bfloat16."""
    dtype = model.fm_transformers.dtype
    Loop(
        start=lambda x: x.to(dtype),
        update=lambda x, dt, v: (x + dt * v).to(dtype),
        finish=lambda x, _: x.float(),
    ).install(model)


# FM501 again: losses too small to see in a picture


@mutant("FM501")
def increments_in_bfloat16(model: TinyFlowModel) -> None:
    """The state keeps its digits, but every increment is rounded to bfloat16 before it is added."""
    Loop(update=lambda x, dt, v: x + (dt * v).bfloat16().float()).install(model)


@mutant("FM501")
def state_shrinks_a_little(model: TinyFlowModel) -> None:
    """The state loses a millionth of itself in every step."""
    Loop(update=lambda x, dt, v: (x + dt * v) * (1 - 2**-20)).install(model)
