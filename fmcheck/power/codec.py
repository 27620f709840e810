"""Faults between the end of the flow and the picture."""

from typing import Any

import torch
from torch import Tensor

from fmcheck.power.fault import Call, around, on_input, on_output, on_result, per_channel

__all__: list[str] = []


@around("decode", rules=("FM604",), quiet=True)
def decoder_fault_swallowed(call: Call) -> Any:
    """An exception of the decoder is caught, and grey pictures are returned in its place."""
    call.did()
    try:
        return call.go()
    except Exception:
        case = call.request.case
        return torch.zeros(case.batch, call.subject.spec.image_channels, case.height, case.width, device=case.device)


@on_input("decode", "x", rules=("FM602", "FM603", "FM601"))
def latent_scaled_twice(x: Tensor, call: Call) -> Tensor:
    """The latent scale and shift are undone a second time before the decoder."""
    spec = call.subject.spec
    twice = x / per_channel(spec.latent_scale, x) + per_channel(spec.latent_shift, x)
    # Where the pipeline has no scale, that of a well-known autoencoder.
    return x / 0.18215 if torch.equal(twice, x) else twice


@on_input("decode", "x", rules=("FM602", "FM601"))
def latent_shifted(x: Tensor, call: Call) -> Tensor:
    """A tenth is added to the latent before the decoder."""
    return x + 0.1


@on_input("decode", "x", rules=("FM602", "FM601"))
def latent_clamped(x: Tensor, call: Call) -> Tensor:
    """The latent is clamped to half of its largest magnitude before the decoder."""
    bound = float(x.detach().abs().max()) / 2
    return x.clamp(-bound, bound)


@on_input("decode", "x", rules=("FM602", "FM601"))
def latent_rounded_to_bfloat16(x: Tensor, call: Call) -> Tensor:
    """The latent goes through bfloat16 on its way to the decoder."""
    return x.bfloat16().to(x.dtype)


@on_input("decode", "x", rules=("FM602", "FM601"))
def latent_rows_rotated(x: Tensor, call: Call) -> Tensor:
    """The decoder is handed the latents of other prompts."""
    return x.roll(1, 0)


@around("decode", rules=("FM602", "FM601"), needs=("decode.x",), watches=("velocity",))
def velocity_decoded(call: Call) -> Any:
    """The decoder is handed the last velocity where it should get the state."""
    x, v = call.get("x"), call.memory.outputs.get("velocity")
    if isinstance(x, Tensor) and v is not None and v[: len(x)].shape == x.shape:
        call.set("x", v[: len(x)].to(x.dtype))
    else:
        call.refuse("the velocity has not the shape of what is decoded")
    return call.go()


@around("sample", rules=("FM603", "FM602"))
def sample_skipped(call: Call) -> Any:
    """What goes into `sample` is handed on as it is."""
    x, returned = call.get("x"), call.go()
    if not isinstance(x, Tensor):
        call.refuse("no tensor is passed as sample.x")
        return returned
    return call.put(returned, x)


@on_output("sample", rules=("FM602",))
def sampled_latent_scaled(x: Tensor, call: Call) -> Tensor:
    """What `sample` returns is multiplied by 1.1."""
    return x * 1.1


@on_output("decode", rules=("FM703", "FM606"))
def pictures_out_of_range(images: Tensor, call: Call) -> Tensor:
    """The decoded pictures are doubled and never clamped."""
    return images * 2


@on_output("decode", rules=("FM606", "FM803"))
def decoded_rows_rotated(images: Tensor, call: Call) -> Tensor:
    """The decoded pictures are returned in another order than their prompts."""
    return images.roll(1, 0)


@on_result(rules=("FM606",))
def picture_mirrored(images: Tensor, call: Call) -> Tensor:
    """The pictures are returned mirrored."""
    return images.flip(-1)


@on_result(rules=("FM606",))
def picture_rounded_to_256_levels(images: Tensor, call: Call) -> Tensor:
    """The pictures are rounded to the levels of eight bits and returned as the floats they were."""
    low, high = call.subject.spec.image_range
    unit = (images.float() - low) / (high - low)
    return ((unit * 255).round() / 255 * (high - low) + low).to(images.dtype)


@on_result(rules=("FM704",))
def picture_in_float16(images: Tensor, call: Call) -> Tensor:
    """The pictures are returned as float16."""
    return images.half()


@on_result(rules=("FM702",))
def picture_cut(images: Tensor, call: Call) -> Tensor:
    """The last column of the pictures is cut off."""
    return images[..., :-1]


@on_result(rules=("FM702",))
def last_picture_lost(images: Tensor, call: Call) -> Tensor:
    """The picture of the last prompt is not returned, where there are several."""
    return images[:-1] if len(images) > 1 else images


@on_result(rules=("FM806", "FM606"))
def first_picture_for_every_prompt(images: Tensor, call: Call) -> Tensor:
    """Every prompt gets the picture of the first one."""
    return images[:1].expand_as(images).clone() if len(images) > 1 else images
