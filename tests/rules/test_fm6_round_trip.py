"""FM607 on toys whose codec brings smooth pictures back, in every unit that a code base may hold its latents in."""

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fmcheck.rules import get_rule
from fmcheck.run import Session
from fmcheck.tolerance import reconstructs, round_trip_bound
from tests.rules.loops import caught, clean, silent
from tests.rules.toy import CASE, FACTOR, SPEC, Codec, Toy, judge, toy_subject

# A scale of a half would make mistakes alike: the shift undone too early and forgotten, for instance.
SCALE, SHIFT = 0.4, 0.25
UNITS = replace(SPEC, latent_scale=SCALE, latent_shift=SHIFT)


class Smooth(Codec):
    """Means of patches, interpolated: an exact codec of pictures that vary slowly, without weights to train."""

    scale, shift = SCALE, SHIFT

    def pooled(self, image: Tensor) -> Tensor:
        colours = F.avg_pool2d(image, FACTOR)
        return torch.cat([colours, torch.zeros_like(colours[:, :1])], dim=1)

    def shown(self, z: Tensor) -> Tensor:
        return F.interpolate(z[:, :3], scale_factor=FACTOR, mode="bilinear")

    def encode(self, image: Tensor) -> Tensor:
        return (self.pooled(image) - self.shift) * self.scale

    def sample(self, x: Tensor) -> Tensor:
        return x / self.scale + self.shift

    def decode(self, x: Tensor) -> Tensor:
        return self.shown(x)


def toy(to_flow: Any = None, to_latent: Any = None, decode: Any = None, **toy_methods: Any) -> type[Toy]:
    """A toy with that codec, whose encoder, `sample` or decoder are replaced."""

    class Other(Smooth):
        def encode(self, image: Tensor) -> Tensor:
            return to_flow(self.pooled(image)) if to_flow else super().encode(image)

        def sample(self, x: Tensor) -> Tensor:
            return to_latent(x) if to_latent else super().sample(x)

        def decode(self, x: Tensor) -> Tensor:
            return decode(self.shown, x) if decode else super().decode(x)

    class WithCodec(Toy):
        def __init__(self) -> None:
            super().__init__()
            self.codec = Other(torch.Generator().manual_seed(0))

    return type("Changed", (WithCodec,), toy_methods)


def test_a_codec_that_reconstructs_passes() -> None:
    outcome = judge("FM607", toy(), spec=UNITS)
    clean(outcome)
    assert outcome.ratio is not None
    assert outcome.ratio <= 1 / 16, "every mistake that is told from the declared chain loses four times as much"


def test_the_reported_psnr_is_that_of_the_codec_itself() -> None:
    session = Session(toy_subject(toy(), spec=UNITS))
    outcome = session.judge(get_rule("FM607"))
    picture = session.run(session.plan.loss).trace.images[:1]
    codec = Smooth(torch.Generator())
    error = (codec.decode(codec.sample(codec.encode(picture))) - picture).square().mean()
    # The range is 2 wide.
    psnr = 10 * torch.log10(4 / error)
    assert outcome.measured == (f"an encoded and decoded picture has a PSNR of {float(psnr):.1f} dB",)


IN_TRAINING = [
    (lambda z: z, "training leaves out scale and shift"),
    (lambda z: ((z - SHIFT) * SCALE - SHIFT) * SCALE, "training applies scale and shift twice"),
    (lambda z: (z - SHIFT) / SCALE, "training divides by the scale"),
    (lambda z: z - SHIFT, "training leaves out the scale"),
    (lambda z: (z - SHIFT) * SCALE**2, "training applies the scale twice"),
    (lambda z: z * SCALE, "training forgets the shift"),
    (lambda z: (z + SHIFT) * SCALE, "training adds the shift"),
    (lambda z: z * SCALE - SHIFT, "training subtracts the shift after it multiplies"),
]


@pytest.mark.parametrize(("to_flow", "cause"), IN_TRAINING, ids=[cause for _, cause in IN_TRAINING])
def test_a_mistake_of_training_is_named(to_flow: Any, cause: str) -> None:
    caught(judge("FM607", toy(to_flow), spec=UNITS), cause)


AFTER_THE_LOOP = [
    (lambda x: (x / SCALE + SHIFT) / SCALE + SHIFT, "undone twice after the loop"),
    (lambda x: x, "never undone after the loop"),
    (lambda x: x * SCALE + SHIFT, "the state is multiplied by the scale after the loop"),
    (lambda x: x + SHIFT, "the scale twice (or it is never undone after the loop)"),
    (lambda x: x / SCALE, "the shift is forgotten after the loop"),
    (lambda x: x / SCALE - SHIFT, "the shift is subtracted after the loop"),
    (lambda x: (x + SHIFT) / SCALE, "the shift is added before the division"),
]


@pytest.mark.parametrize(("undo", "cause"), AFTER_THE_LOOP, ids=[cause for _, cause in AFTER_THE_LOOP])
@pytest.mark.parametrize("inside", ["sample", "decode"])
def test_a_mistake_after_the_loop_is_named_where_nothing_else_can_see_it(undo: Any, cause: str, inside: str) -> None:
    if inside == "sample":
        caught(judge("FM607", toy(to_latent=undo), spec=UNITS), cause)
    else:
        # What decode undoes by itself is hidden from FM603.
        model = toy(to_latent=lambda x: x.clone(), decode=lambda shown, x: shown(undo(x)))
        caught(judge("FM607", model, spec=replace(UNITS, unscale_before_decode=False)), cause)


PICTURES = [
    (lambda image: image.flip(1), "the channels are in reversed order"),
    (lambda image: image.flip(-1), "the images are mirrored"),
    (lambda image: image.flip(-2), "the images are upside down"),
    (lambda image: image.transpose(-1, -2), "height and width are exchanged"),
    (lambda image: -image, "the images are negated"),
    (lambda image: (image + 1) / 2, "the images are mapped to [0, 1]"),
]


@pytest.mark.parametrize(("change", "cause"), PICTURES, ids=[cause for _, cause in PICTURES])
def test_a_decoder_that_returns_another_picture_is_named(change: Any, cause: str) -> None:
    model = toy(decode=lambda shown, x: change(shown(x)))
    caught(judge("FM607", model, spec=UNITS), cause)
    # Without a latent scale the picture is all that there is to compare.
    plain = toy(lambda z: z, lambda x: x.clone(), lambda shown, x: change(shown(x)))
    caught(judge("FM607", plain, spec=replace(UNITS, latent_scale=1.0, latent_shift=0.0)), cause)


# Correct code in other words.


class InParts(toy()):  # type: ignore[misc]
    """One row at a time goes through the autoencoder, and every step decodes a preview."""

    def finish(self, images: Tensor) -> Tensor:
        return images

    def integrate(self, x: Tensor, *rest: Any) -> Tensor:
        self.codec.sample(x)
        return super().integrate(x, *rest)

    def generate(self, *given: Any, **named: Any) -> Tensor:
        decode = self.codec.decode
        try:
            self.codec.decode = lambda latents: torch.cat([decode(row) for row in latents.split(1)])
            return super().generate(*given, **named)
        finally:
            self.codec.decode = decode


class NoiseStart:
    """The start of the flow has nothing to do with the text latent."""

    def initial_state(self, z: Tensor, height: int, width: int) -> Tensor:
        x = super().initial_state(z, height, width)  # type: ignore[misc]
        return torch.randn(x.shape, generator=torch.Generator().manual_seed(int(z.abs().sum())))


class FromNoise(NoiseStart, toy()):  # type: ignore[misc]
    """The flow starts at noise."""


def scaled_outside(z: Tensor) -> Tensor:
    return (z - SHIFT) * SCALE


class RawEncoder(toy(lambda z: z)):  # type: ignore[misc]
    """The encoder ends in the decoder's units, and the loss scales."""

    def train_null(self, x1: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return super().train_null(scaled_outside(x1), generator)


SAME_MEANING = [
    ("in parts", InParts, {}),
    ("from noise", FromNoise, {"spec": replace(UNITS, initial_state="noise")}),
    ("scale outside of the encoder", RawEncoder, {}),
    ("no sample point", toy(), {"sample": None}),
    ("not square", toy(), {"case": CASE.but(height=96, width=40)}),
    ("one prompt", toy(), {"case": CASE.with_batch(1)}),
]


@pytest.mark.parametrize(("model", "changes"), [row[1:] for row in SAME_MEANING], ids=[row[0] for row in SAME_MEANING])
def test_other_ways_of_writing_it_pass(model: type[Toy], changes: dict[str, Any]) -> None:
    clean(judge("FM607", model, **{"spec": UNITS, **changes}))


def test_mistakes_show_in_flows_from_noise_too() -> None:
    class Forgetful(NoiseStart, toy(lambda z: z)):  # type: ignore[misc]
        pass

    caught(judge("FM607", Forgetful, spec=replace(UNITS, initial_state="noise")), "training leaves out scale and shift")


def test_a_scaled_encoder_that_is_scaled_again_is_told_from_a_raw_one() -> None:
    class ScaledAgain(toy()):  # type: ignore[misc]
        def train_null(self, x1: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
            return super().train_null(scaled_outside(x1), generator)

    # FM906 takes the encoder's output for one in the decoder's units.
    clean(judge("FM906", ScaledAgain, spec=UNITS))
    caught(judge("FM607", ScaledAgain, spec=UNITS), "training applies scale and shift twice")


def test_a_codec_that_loses_contrast_is_no_mistake_of_units() -> None:
    for gain in (0.7, 0.85, 0.95, 1.05, 1.2, 1.4):
        outcome = judge("FM607", toy(decode=lambda shown, x, gain=gain: gain * shown(x)), spec=UNITS)
        assert not outcome.findings, f"{gain}: {outcome.findings}"


# Where it cannot be told.


def test_weights_that_nobody_trained_say_nothing() -> None:
    silent(judge("FM607"), "no chain brings a picture back: the declared one loses 0.5")


def test_a_scale_that_changes_less_than_the_codec_itself_is_not_told() -> None:
    nearly = replace(UNITS, latent_scale=0.99, latent_shift=0.0)
    session = Session(toy_subject(toy(lambda z: 0.99 * z, lambda x: x / 0.99), spec=nearly))
    clean(session.judge(get_rule("FM607")))  # that no picture is mirrored is told all the same
    forgotten = toy(lambda z: z, lambda x: x / 0.99)
    clean(judge("FM607", forgotten, spec=nearly))


def test_moments_in_place_of_latents_are_not_judged() -> None:
    model = toy(lambda z: torch.cat([z, z], dim=1), train_null=_first_half)
    silent(judge("FM607", model, spec=UNITS), "no output of the encode point has the shape of the state")


def _first_half(self: Toy, x1: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    return Toy.train_null(self, x1[:, :4], generator)


def test_a_loss_that_raises_is_not_judged() -> None:
    def fails(*_: Any) -> Tensor:
        raise RuntimeError("no loss today")

    silent(judge("FM607", toy(train_null=fails), spec=UNITS), "no loss today")


def test_the_margins() -> None:
    assert reconstructs(0.25)
    assert not reconstructs(0.26)
    assert round_trip_bound(0.1) == pytest.approx(0.4)
