"""Correct variations of both ends of the flow: units of the autoencoder, its posterior, and a start at noise."""

import torch
from torch import Tensor

from fmcheck.mutants.noise_start import with_noise_start
from fmcheck.mutants.patch_codec import patches_of, pictures_of, with_patch_codec
from fmcheck.mutants.posterior import sampled_in_training
from fmcheck.mutants.registry import variation
from fmcheck.mutants.remodel import remodel
from fmcheck.mutants.surgery import bind, wrap
from fmcheck.subject import Subject
from fmcheck.tiny import TinyFlowModel

# Units of the latent


@variation()
def pictures_come_back(subject: Subject) -> Subject:
    """The autoencoder reconstructs smooth pictures."""
    return with_patch_codec(subject, "pictures_come_back")


@variation()
def encoder_in_the_decoders_units(subject: Subject) -> Subject:
    """The encoder ends in the decoder's units, and the loss brings its latents to the flow's."""

    def change(model: TinyFlowModel) -> None:
        codec = model.autoencoder
        bind(codec, "encode_moments", lambda _, image: patches_of(image))
        wrap(model, "encode_images", lambda encode, images: (encode(images) - codec.shift) * codec.scale)

    return with_patch_codec(subject, "encoder_in_the_decoders_units", change)


@variation()
def decoder_undoes_the_scale(subject: Subject) -> Subject:
    """`sample` passes the state on, and `decode` undoes scale and shift itself, as the spec says."""

    def change(model: TinyFlowModel) -> None:
        codec = model.autoencoder
        bind(codec, "sample", lambda _, x: x.clone())
        bind(codec, "decode", lambda found, x: pictures_of(x / found.scale + found.shift).clamp(-1, 1))

    return with_patch_codec(subject, "decoder_undoes_the_scale", change, unscale_before_decode=False)


@variation()
def latent_scale_without_shift(subject: Subject) -> Subject:
    """The latent scale is 0.7, without a shift."""

    def change(model: TinyFlowModel) -> None:
        model.autoencoder.scale, model.autoencoder.shift = 0.7, 0.0

    return with_patch_codec(subject, "latent_scale_without_shift", change, latent_scale=0.7, latent_shift=0.0)


# Posterior


@variation()
def posterior_sampled_and_declared(subject: Subject) -> Subject:
    """Encoding draws a sample of the posterior with the caller's generator, and the spec says so."""

    def draw(image: Tensor, shape: torch.Size, generator: torch.Generator) -> Tensor:
        return torch.randn(shape, generator=generator)

    def change(model: TinyFlowModel) -> None:
        sampled_in_training(model, draw)

    return remodel(subject, "posterior_sampled_and_declared", change, posterior="sample")


# Start


@variation()
def flow_from_noise(subject: Subject) -> Subject:
    """The flow starts at normal noise, and the prompt moves the velocity."""
    return with_noise_start(subject, "flow_from_noise")


@variation()
def flow_from_less_noise(subject: Subject) -> Subject:
    """The noise has a standard deviation of 0.7 in training and sampling, and the spec says so."""
    return with_noise_start(
        subject,
        "flow_from_less_noise",
        lambda shape, generator, _: 0.7 * torch.randn(shape, generator=generator),
        noise_scale=0.7,
    )
