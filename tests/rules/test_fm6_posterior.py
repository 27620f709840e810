"""FM608 on toys whose encoder draws, and on those that should and do not."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.rules.loops import caught, clean, silent
from tests.rules.toy import SPEC, Toy, judge

SAMPLED = replace(SPEC, posterior="sample")


def drawing(noise: Any) -> type[Toy]:
    """A toy whose encoder adds `noise(like, generator)`, with the generator of the loss."""

    class Other(Toy):
        def __init__(self) -> None:
            super().__init__()
            encode = self.codec.encode
            self.codec.encode = lambda image: self.with_noise(encode(image))

        def with_noise(self, z: Tensor) -> Tensor:
            return z + 0.1 * noise(z, self.generator)

        def training_loss(self, images: Tensor, input_ids: Tensor, attention_mask: Tensor, generator: Any) -> Tensor:
            self.generator = generator
            return super().training_loss(images, input_ids, attention_mask, generator)

    return Other


def by_the_caller(z: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(z.shape, generator=generator)


def in_parts(z: Tensor, generator: torch.Generator) -> Tensor:
    return torch.cat([by_the_caller(part, generator) for part in z.split(3)])


OWN = torch.Generator().manual_seed(5)

UNDECLARED = [
    (by_the_caller, "the encoder draws from the caller's generator"),
    (lambda z, _: torch.randn(z.shape), "the encoder draws from the global torch one"),
    (lambda z, _: torch.randn(z.shape, generator=OWN), "a generator of its own, or remembers earlier calls"),
]


@pytest.mark.parametrize(("noise", "cause"), UNDECLARED, ids=[cause for _, cause in UNDECLARED])
def test_a_sample_where_the_mode_is_declared_is_named(noise: Any, cause: str) -> None:
    model = drawing(noise)
    if "global" not in cause:
        caught(judge("FM608", model), cause, "the same images have two different latents")
    else:
        # Every run finds the global generators in one state, so that only FM907 can see them here.
        caught(judge("FM907", model), "draws from torch")


WRONG_SAMPLES = [
    (lambda z, _: 0 * z, "its mode is taken, or noise with a fixed seed is added"),
    (lambda z, _: torch.randn(z.shape, generator=torch.Generator().manual_seed(0)), "noise with a fixed seed"),
    (lambda z, g: 0 * by_the_caller(z, g), "what is drawn is not used"),
    (lambda z, _: torch.randn(z.shape, generator=OWN), "a generator of its own"),
    (lambda z, g: by_the_caller(z, g) * torch.rand(()), "the caller's generator and the global torch one"),
]


@pytest.mark.parametrize(("noise", "cause"), WRONG_SAMPLES, ids=[cause for _, cause in WRONG_SAMPLES])
def test_a_declared_sample_that_is_none_is_named(noise: Any, cause: str) -> None:
    caught(judge("FM608", drawing(noise), spec=SAMPLED), cause)


def test_both_conventions_pass_when_they_are_declared() -> None:
    clean(judge("FM608"))
    for noise in (by_the_caller, in_parts):
        clean(judge("FM608", drawing(noise), spec=SAMPLED))


def test_moments_do_not_show_whether_a_sample_is_taken_of_them() -> None:
    class Moments(Toy):
        def __init__(self) -> None:
            super().__init__()
            encode = self.codec.encode
            self.codec.encode = lambda image: torch.cat([encode(image)] * 2, dim=1)

        def train_null(self, x1: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
            mean, log_var = x1.chunk(2, dim=1)
            return super().train_null(mean + torch.exp(log_var / 2) * by_the_caller(mean, generator), generator)

    silent(judge("FM608", Moments, spec=SAMPLED), "no output of the encode point has the shape of the state")
    clean(judge("FM608", Moments))


def test_a_loss_that_never_encodes_is_left_to_fm906() -> None:
    class Elsewhere(Toy):
        def training_loss(self, images: Tensor, *given: Any, **named: Any) -> Tensor:
            encode, self.codec.__dict__["encode"] = self.codec.encode, lambda image: torch.zeros(len(image), 4, 8, 8)
            try:
                return super().training_loss(images, *given, **named)
            finally:
                self.codec.__dict__["encode"] = encode

    silent(judge("FM608", Elsewhere), "never calls the encode point")
