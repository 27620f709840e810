"""FM6: autoencoders whose two halves do not undo each other, and encoders that draw otherwise than declared."""

from typing import Any

import torch
from torch import Tensor

from fmcheck.mutants.patch_codec import patches_of, pictures_of, with_patch_codec
from fmcheck.mutants.posterior import sampled_in_training
from fmcheck.mutants.registry import mutant, subject_mutant
from fmcheck.mutants.remodel import remodel
from fmcheck.mutants.surgery import bind, wrap
from fmcheck.subject import Subject
from fmcheck.tiny import TinyFlowModel

# FM607 broken-round-trip


def _encoding(subject: Subject, name: str, to_flow: Any) -> Subject:
    """Training ends its paths at `to_flow(latent, scale, shift)`."""

    def change(model: TinyFlowModel) -> None:
        bind(
            model.autoencoder,
            "encode_moments",
            lambda codec, image: to_flow(patches_of(image), codec.scale, codec.shift),
        )

    return with_patch_codec(subject, name, change)


@subject_mutant("FM607")
def training_forgets_the_latent_scale(subject: Subject) -> Subject:
    """Training uses the encoder's output as it is, while sampling divides by the scale."""
    return _encoding(subject, "training_forgets_the_latent_scale", lambda z, scale, shift: z)


@subject_mutant("FM607")
def training_scales_twice(subject: Subject) -> Subject:
    """The encoder ends in the flow's units, and scale and shift are applied once more."""
    return _encoding(subject, "training_scales_twice", lambda z, scale, shift: ((z - shift) * scale - shift) * scale)


@subject_mutant("FM607")
def training_divides_by_the_scale(subject: Subject) -> Subject:
    """Training divides by the scale that sampling divides by too."""
    return _encoding(subject, "training_divides_by_the_scale", lambda z, scale, shift: (z - shift) / scale)


@subject_mutant("FM607")
def training_forgets_the_shift(subject: Subject) -> Subject:
    """Training multiplies by the scale and leaves the shift."""
    return _encoding(subject, "training_forgets_the_shift", lambda z, scale, shift: z * scale)


@subject_mutant("FM607")
def training_adds_the_shift(subject: Subject) -> Subject:
    """Training adds the shift that sampling adds too."""
    return _encoding(subject, "training_adds_the_shift", lambda z, scale, shift: (z + shift) * scale)


@subject_mutant("FM607")
def training_shifts_after_the_scale(subject: Subject) -> Subject:
    """Training multiplies first and subtracts the shift then."""
    return _encoding(subject, "training_shifts_after_the_scale", lambda z, scale, shift: z * scale - shift)


def _decoding(subject: Subject, name: str, decode: Any, **spec: Any) -> Subject:
    """`decode(latent, scale, shift)` makes the pictures."""

    def change(model: TinyFlowModel) -> None:
        codec = model.autoencoder
        bind(codec, "decode", lambda found, x: decode(x, found.scale, found.shift).clamp(-1, 1))
        if spec:
            bind(codec, "sample", lambda _, x: x.clone())

    return with_patch_codec(subject, name, change, **spec)


@subject_mutant("FM607")
def decoder_undoes_the_scale_too(subject: Subject) -> Subject:
    """Both `sample` and `decode` undo scale and shift."""
    return _decoding(subject, "decoder_undoes_the_scale_too", lambda x, scale, shift: pictures_of(x / scale + shift))


@subject_mutant("FM607")
def decoder_forgets_the_shift(subject: Subject) -> Subject:
    """`decode` is the one that undoes the scale, and leaves the shift."""
    return _decoding(
        subject,
        "decoder_forgets_the_shift",
        lambda x, scale, shift: pictures_of(x / scale),
        unscale_before_decode=False,
    )


@subject_mutant("FM607")
def decoder_returns_bgr(subject: Subject) -> Subject:
    """`decode` returns blue, green and red of pictures that were encoded as red, green and blue."""
    return _decoding(subject, "decoder_returns_bgr", lambda x, scale, shift: pictures_of(x).flip(1))


@subject_mutant("FM607")
def decoder_returns_unit_range(subject: Subject) -> Subject:
    """`decode` returns pictures in [0, 1], and [-1, 1] is declared."""
    return _decoding(subject, "decoder_returns_unit_range", lambda x, scale, shift: (pictures_of(x) + 1) / 2)


# FM608 wrong-posterior


@mutant("FM608")
def posterior_sampled_undeclared(model: TinyFlowModel) -> None:
    """Training samples the encoder's posterior, and the spec says that it takes the mode."""
    sampled_in_training(model, lambda image, shape, generator: torch.randn(shape, generator=generator))


@mutant("FM608")
def encoder_noise_of_its_own(model: TinyFlowModel) -> None:
    """The encoder adds noise of a generator that it keeps."""
    own = torch.Generator().manual_seed(3)
    sampled_in_training(model, lambda image, shape, generator: torch.randn(shape, generator=own))


@mutant("FM608")
def encoder_with_a_running_mean(model: TinyFlowModel) -> None:
    """The encoder takes off a running mean of the images that it has seen."""
    mean = [0.0]

    def encode(encode_moments: Any, image: Tensor) -> Any:
        mean[0] += 0.1 * (float(image.mean()) - mean[0])
        return encode_moments(image - mean[0])

    wrap(model.autoencoder, "encode_moments", encode)


def _declared_sample(subject: Subject, name: str, draw: Any) -> Subject:
    return remodel(subject, name, lambda model: sampled_in_training(model, draw), posterior="sample")


@subject_mutant("FM608")
def posterior_sample_is_the_mode(subject: Subject) -> Subject:
    """The spec says that the posterior is sampled, and training takes its mode."""
    return remodel(subject, "posterior_sample_is_the_mode", posterior="sample")


@subject_mutant("FM608")
def posterior_sample_with_a_fixed_seed(subject: Subject) -> Subject:
    """The posterior is sampled, as declared, with a generator that is seeded anew for every batch."""
    return _declared_sample(
        subject,
        "posterior_sample_with_a_fixed_seed",
        lambda image, shape, generator: torch.randn(shape, generator=torch.Generator().manual_seed(0)),
    )


@subject_mutant("FM608")
def posterior_sample_of_the_global_generator(subject: Subject) -> Subject:
    """The posterior is sampled, as declared, and one of its two factors comes from torch's global generator."""
    return _declared_sample(
        subject,
        "posterior_sample_of_the_global_generator",
        lambda image, shape, generator: torch.randn(shape, generator=generator) * (0.5 + torch.rand(())),
    )
