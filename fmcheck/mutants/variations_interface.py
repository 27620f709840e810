"""Correct variations of everything around the flow: calls, containers, sizes, dtypes, ranges and missing points."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fmcheck.mutants.registry import variation
from fmcheck.mutants.remodel import remodel
from fmcheck.mutants.surgery import bind, wrap
from fmcheck.subject import Point, Subject
from fmcheck.tiny import TinyFlowModel

# What the network's call looks like


@dataclass
class Output:
    """What transformers of a well-known library return."""

    sample: Tensor


def _contained(subject: Subject, name: str, pack: Any, unpack: Any) -> Subject:
    def change(model: TinyFlowModel) -> None:
        wrap(model.fm_transformers, "forward", lambda forward, *given: pack(forward(*given)))
        # A hook, because it runs between the observed forward and the loop.
        model.fm_transformers.register_forward_hook(lambda _, __, returned: unpack(returned))

    return remodel(subject, name, change)


@variation()
def velocity_in_a_tuple(subject: Subject) -> Subject:
    """The network returns `(velocity,)`."""
    return _contained(subject, "velocity_in_a_tuple", lambda v: (v,), lambda returned: returned[0])


@variation()
def velocity_in_a_list(subject: Subject) -> Subject:
    """The network returns `[velocity]`."""
    return _contained(subject, "velocity_in_a_list", lambda v: [v], lambda returned: returned[0])


@variation()
def velocity_in_a_dataclass(subject: Subject) -> Subject:
    """The network returns an object with the velocity in `sample`."""
    return _contained(subject, "velocity_in_a_dataclass", lambda v: Output(v), lambda returned: returned.sample)


@variation()
def velocity_beside_another_tensor(subject: Subject) -> Subject:
    """The network returns `{"loss": ..., "velocity": ...}`, and the point names the entry."""
    named = subject.but(velocity=Point("fm_transformers", output="velocity"))
    return _contained(
        named,
        "velocity_beside_another_tensor",
        lambda v: {"loss": v.new_zeros(()), "velocity": v},
        lambda returned: returned["velocity"],
    )


@variation()
def arguments_by_keyword(subject: Subject) -> Subject:
    """The network takes `timestep`, `sample` and `drop`, by keyword alone."""

    def change(model: TinyFlowModel) -> None:
        network = model.fm_transformers
        clean = network.forward

        def forward(_: Any, *, timestep: Tensor, sample: Tensor, drop: Tensor) -> Any:
            return clean(sample, timestep, drop)

        bind(network, "forward", forward)
        network.register_forward_pre_hook(
            lambda _, args, __: ((), dict(zip(("sample", "timestep", "drop"), args, strict=True))), with_kwargs=True
        )

    arguments = {"x": "sample", "time": "timestep", "null": "drop"}
    named = subject.but(velocity=Point("fm_transformers", arguments=arguments))
    return remodel(named, "arguments_by_keyword", change)


@variation()
def autoencoder_dispatches_by_name(subject: Subject) -> Subject:
    """All three parts of the autoencoder are `autoencoder(x, fn=...)`."""

    def change(model: TinyFlowModel) -> None:
        codec = model.autoencoder
        bind(model, "decode_state", lambda _, x: codec(codec(x, fn="sample"), fn="decode"))

        def encoded(_: TinyFlowModel, images: Tensor) -> Any:
            with torch.no_grad():
                return codec(images)

        bind(model, "encode_images", encoded)

    points = {
        role: Point("autoencoder", when={"fn": fn})
        for role, fn in (("encode", "encode_moments"), ("sample", "sample"), ("decode", "decode"))
    }
    return remodel(subject.but(**points), "autoencoder_dispatches_by_name", change)


# Native cases


@variation()
def native_size_needs_the_fallback(subject: Subject) -> Subject:
    """The native size is 192x320, for which the text latent does not fit."""
    return subject.but(name="tiny at 192x320", case=subject.case.but(height=192, width=320))


@variation()
def native_size_is_wide(subject: Subject) -> Subject:
    """The native size is 128x512, for which the text latent fits."""
    return subject.but(name="tiny at 128x512", case=subject.case.but(height=128, width=512))


@variation()
def native_batch_of_one(subject: Subject) -> Subject:
    """The native case has a single prompt."""
    return subject.but(name="tiny for one prompt", case=subject.case.with_batch(1))


@variation()
def native_bfloat16(subject: Subject) -> Subject:
    """The network's native dtype is bfloat16; the state stays float32."""
    return subject.but(name="tiny in bfloat16", case=subject.case.but(dtype="bfloat16"), dtypes=("bfloat16",))


@variation()
def native_many_steps_strong_guidance(subject: Subject) -> Subject:
    """The native case has 12 steps and a guidance scale of 6."""
    return subject.but(name="tiny at scale 6", case=subject.case.but(num_steps=12, guidance_scale=6.0, seed=7))


# Result and points


@variation()
def pictures_in_unit_range(subject: Subject) -> Subject:
    """`generate` returns pictures in [0, 1], and training is given such pictures."""

    def change(model: TinyFlowModel) -> None:
        wrap(model, "decode_state", lambda decode, x: (decode(x) + 1) / 2)
        wrap(model, "encode_images", lambda encode, images: encode(2 * images - 1))

    return remodel(subject, "pictures_in_unit_range", change, image_range=(0.0, 1.0), decode_range=(-1.0, 1.0))


@variation()
def only_the_network_observed(subject: Subject) -> Subject:
    """The subject declares no point but the velocity network, no tokenizer's helpers and no loss."""
    return subject.but(
        name="tiny with one point",
        text=None,
        encode=None,
        sample=None,
        decode=None,
        entry=None,
        loss=None,
        loss_entry=None,
        pad=None,
        masked=None,
    )


@variation()
def output_layer_still_zero(subject: Subject) -> Subject:
    """The network's output layer is zero-initialised and untrained: nothing can be said, so nothing is wrong."""

    def change(model: TinyFlowModel) -> None:
        for parameter in model.fm_transformers.out.parameters():
            torch.nn.init.zeros_(parameter)

    return remodel(subject, "output_layer_still_zero", change)


@variation()
def noise_on_the_callers_terms(subject: Subject) -> Subject:
    """Another correct order of draws: one draw a row instead of one for the batch."""

    def change(model: TinyFlowModel) -> None:
        def by_row(_: Any, mu: Tensor, log_var: Tensor, generator: torch.Generator | None) -> Tensor:
            if generator is None:
                return mu
            rows = [torch.randn(mu.shape[1], generator=generator) for _ in mu]
            return mu + torch.exp(log_var / 2) * torch.stack(rows).to(mu.device)

        bind(model.text_encoder, "reparametrise", by_row)

    return remodel(subject, "noise_on_the_callers_terms", change)
