"""FM6: the wrong tensor decoded, a broken codec chain, swallowed faults and altered pictures."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fmcheck.mutants.loop import Loop, Step
from fmcheck.mutants.registry import mutant
from fmcheck.mutants.surgery import bind, wrap
from fmcheck.tiny import TinyFlowModel

# FM601 wrong-tensor-decoded


@mutant("FM601")
def previous_state_decoded(model: TinyFlowModel) -> None:
    """The state before the last step is decoded."""
    Loop(finish=lambda x, made: made[-1].start).install(model)


@mutant("FM601")
def initial_state_decoded(model: TinyFlowModel) -> None:
    """The initial state is decoded; the loop's result goes nowhere."""
    Loop(finish=lambda x, made: made[0].start).install(model)


@mutant("FM601")
def states_averaged(model: TinyFlowModel) -> None:
    """The mean of the last two states is decoded."""
    Loop(finish=lambda x, made: (made[-1].start + x) / 2).install(model)


@mutant("FM601")
def last_step_made_twice(model: TinyFlowModel) -> None:
    """The last increment is added once more before decoding."""

    def overshoot(x: Tensor, made: list[Step]) -> Tensor:
        return x + made[-1].dt * made[-1].velocity

    Loop(finish=overshoot).install(model)


# FM602 broken-codec-chain


@mutant("FM602")
def decoded_without_sample(model: TinyFlowModel) -> None:
    """The state goes straight into `decode`."""
    bind(model, "decode_state", lambda found, x: found.autoencoder.decode(x))


@mutant("FM602")
def sampled_twice(model: TinyFlowModel) -> None:
    """`sample` is called twice in a row."""
    wrap(model, "decode_state", lambda decode, x: decode(model.autoencoder.sample(x)))


@mutant("FM602")
def preview_in_every_step(model: TinyFlowModel) -> None:
    """Every step decodes a preview."""

    def previewed(x: Tensor, dt: Tensor, v: Tensor) -> Tensor:
        x = x + dt * v
        model.decode_state(x)
        return x

    Loop(update=previewed).install(model)


@mutant("FM602")
def latent_clipped_before_decode(model: TinyFlowModel) -> None:
    """What `sample` returns is clamped on the way to `decode`."""
    codec = model.autoencoder
    bind(model, "decode_state", lambda _, x: codec.decode(codec.sample(x).clamp(-1, 1)))


# FM603 wrong-latent-scale


@mutant("FM603")
def latents_scaled_twice(model: TinyFlowModel) -> None:
    """`sample` applies scale and shift twice."""
    wrap(model.autoencoder, "sample", lambda sample, x: sample(sample(x)))


@mutant("FM603")
def scale_multiplied(model: TinyFlowModel) -> None:
    """`sample` multiplies by the scale that training divided out."""
    bind(model.autoencoder, "sample", lambda codec, x: x * codec.scale + codec.shift)


@mutant("FM603")
def shift_forgotten(model: TinyFlowModel) -> None:
    """`sample` undoes the scale and leaves the shift."""
    bind(model.autoencoder, "sample", lambda codec, x: x / codec.scale)


@mutant("FM603")
def shift_before_scale(model: TinyFlowModel) -> None:
    """`sample` adds the shift before it divides."""
    bind(model.autoencoder, "sample", lambda codec, x: (x + codec.shift) / codec.scale)


# FM604 swallowed-fault


def _swallow(model: TinyFlowModel, name: str, instead: Any) -> None:
    def guarded(original: Any, *given: Any, **named: Any) -> Any:
        try:
            return original(*given, **named)
        except Exception:
            return instead(*given)

    wrap(model, name, guarded)


@mutant("FM604")
def decoder_fault_becomes_grey(model: TinyFlowModel) -> None:
    """An exception in the autoencoder becomes a grey picture."""
    _swallow(model, "decode_state", lambda x: x.new_zeros(len(x), 3, 32 * x.shape[-2], 32 * x.shape[-1]))


@mutant("FM604")
def network_fault_skips_the_step(model: TinyFlowModel) -> None:
    """An exception in the velocity network becomes a velocity of zero."""
    _swallow(model, "velocities", lambda x, t: (torch.zeros_like(x), None))


@mutant("FM604")
def text_fault_becomes_zeros(model: TinyFlowModel) -> None:
    """An exception in the text encoder leaves the flow to start from zeros."""

    def guarded(generate: Any, **given: Any) -> Any:
        try:
            return generate(**given)
        except RuntimeError:
            batch, height, width = len(given["input_ids"]) // 2, given["height"], given["width"]
            zeros = torch.zeros(batch, model.config.text_latent, device=model.device)
            x, grid = model.initial_state(zeros, height, width), model.time_grid(given["num_steps"], model.device)
            return model.decode_state(model.integrate(x, grid, given["cfg_scale"]))

    wrap(model, "generate", guarded)


# FM605 swallowed-nan


@mutant("FM605")
def nan_velocity_zeroed(model: TinyFlowModel) -> None:
    """NaN in the velocity is replaced by zero."""
    Loop(velocity=lambda v, _: torch.nan_to_num(v)).install(model)


@mutant("FM605")
def nan_picture_blackened(model: TinyFlowModel) -> None:
    """NaN in the picture is replaced by a number, as safety filters do."""
    wrap(model, "decode_state", lambda decode, x: torch.nan_to_num(decode(x), nan=-1.0))


@mutant("FM605")
def nan_state_reset(model: TinyFlowModel) -> None:
    """A state that is not finite is replaced by the one before the step."""
    Loop(update=lambda x, dt, v: torch.where((x + dt * v).isfinite(), x + dt * v, x)).install(model)


# FM606 altered-image


@mutant("FM606")
def picture_mapped_to_unit_range(model: TinyFlowModel) -> None:
    """The picture is returned in [0, 1]."""
    wrap(model, "decode_state", lambda decode, x: (decode(x) + 1) / 2)


@mutant("FM606")
def picture_mirrored(model: TinyFlowModel) -> None:
    """The picture is flipped from left to right."""
    wrap(model, "decode_state", lambda decode, x: decode(x).flip(-1))


@mutant("FM606")
def grey_levels_truncated(model: TinyFlowModel) -> None:
    """The picture goes through 8 bits by truncation instead of rounding."""
    wrap(model, "decode_state", lambda decode, x: ((decode(x) + 1) * 127.5).byte() / 127.5 - 1)


@mutant("FM606")
def contrast_stretched(model: TinyFlowModel) -> None:
    """Every picture is stretched to the full range."""

    def stretched(decode: Any, x: Tensor) -> Tensor:
        image = decode(x)
        low, high = image.amin((1, 2, 3), keepdim=True), image.amax((1, 2, 3), keepdim=True)
        return 2 * (image - low) / (high - low) - 1  # type: ignore[no-any-return]

    wrap(model, "decode_state", stretched)


@mutant("FM606")
def scale_applied_to_the_picture(model: TinyFlowModel) -> None:
    """The latent scale is multiplied onto the decoded picture."""
    wrap(model, "decode_state", lambda decode, x: decode(x) * model.config.latent_scale)


@mutant("FM606")
def picture_resampled(model: TinyFlowModel) -> None:
    """The picture is made smaller and larger again, for an anti-aliased preview."""
    wrap(
        model,
        "decode_state",
        lambda decode, x: F.interpolate(F.avg_pool2d(decode(x), 2), scale_factor=2, mode="bilinear"),
    )
