"""Autoencoder: 32 channels at a 32nd of the size, one scale and shift for both directions, rows alone."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fmcheck.tiny import build
from fmcheck.tiny.autoencoder import Down, Up, average_channels, duplicate_channels
from fmcheck.tiny.render import render
from fmcheck.tiny.scenes import example

AUTOENCODER = build().autoencoder.requires_grad_(False)


def picture(batch, height, width, seed=0):
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@settings(max_examples=10, deadline=None)
@given(batch=st.integers(1, 3), h=st.integers(1, 4), w=st.integers(1, 4))
def test_shapes_at_any_multiple_of_32(batch, h, w):
    moments = AUTOENCODER.encode_moments(picture(batch, 32 * h, 32 * w))
    assert moments.shape == (batch, 32, h, w)
    image = AUTOENCODER.decode(AUTOENCODER.sample(moments))
    assert image.shape == (batch, 3, 32 * h, 32 * w)
    assert image.dtype == torch.float32


@pytest.mark.parametrize(("size", "flat"), [(256, 2048), (512, 8192)])
def test_flattened_sizes_of_the_design(size, flat):
    assert AUTOENCODER.encode_moments(picture(1, size, size)).flatten(1).shape == (1, flat)


def test_sample_is_the_inverse_of_the_flows_units(randn):
    moments = randn(2, 32, 3, 5)
    expected = moments.numpy().astype(np.float64) / 0.41 + 0.15
    # A division and an addition, each half an ulp of numbers below 16.
    np.testing.assert_allclose(AUTOENCODER.sample(moments), expected, rtol=0, atol=2 * 16 * 2**-24)


def test_encode_moments_ends_in_the_flows_units():
    image = picture(1, 64, 64)
    hidden = AUTOENCODER.encoder(torch.nn.functional.pixel_unshuffle(image, 8))
    raw = AUTOENCODER.to_latent(hidden) + hidden.reshape(1, 32, 4, 2, 2).mean(2)
    torch.testing.assert_close(AUTOENCODER.encode_moments(image), (raw - 0.15) * 0.41)
    # The decoder's units come back, so that scale and shift act once on the way round.
    torch.testing.assert_close(AUTOENCODER.sample(AUTOENCODER.encode_moments(image)), raw, rtol=1e-5, atol=1e-5)


def test_moments_are_deterministic_and_of_unit_order():
    image = render([example("held_out", index)[1] for index in range(8)], 256, 256)
    moments = AUTOENCODER.encode_moments(image)
    assert torch.equal(moments, AUTOENCODER.encode_moments(image))
    assert 0.4 < moments.std().item() < 2.0
    assert abs(moments.mean().item()) < 0.4


def test_decode_stays_in_range_for_wild_latents(randn):
    image = AUTOENCODER.decode(1e4 * randn(1, 32, 2, 2))
    assert image.abs().max().item() <= 1.0


def test_decode_is_smooth_not_clamped(randn, untrained):
    """A trained one has every reason to come close to the ends of the range."""
    autoencoder = untrained.autoencoder
    latents = autoencoder.sample(randn(2, 32, 8, 8)).requires_grad_()
    image = autoencoder.decode(latents)
    image.sum().backward()
    assert (image.abs() < 0.98).float().mean().item() > 0.95
    assert latents.grad is not None
    assert (latents.grad != 0).all()


@settings(max_examples=6, deadline=None)
@given(batch=st.integers(2, 4), h=st.integers(1, 4), w=st.integers(1, 4))
def test_rows_do_not_see_each_other(assert_rows_alone, randn, batch, h, w):
    assert_rows_alone(AUTOENCODER.decode, randn(batch, 32, h, w))
    assert_rows_alone(AUTOENCODER.encode_moments, picture(batch, 32 * h, 32 * w))


def test_shortcuts_average_and_duplicate_by_hand():
    x = torch.arange(8.0).reshape(1, 4, 1, 2)
    assert average_channels(x, 2).flatten().tolist() == [1.0, 2.0, 5.0, 6.0]
    assert duplicate_channels(x, 8)[0, :, 0, 0].tolist() == [0, 0, 2, 2, 4, 4, 6, 6]


def test_up_undoes_the_shortcut_of_down():
    """With silent convolutions a picture that is constant in each 2x2 square goes down and up unchanged."""
    down, up = Down(8, 8), Up(8, 8)
    for layer in (down.conv, up.conv):
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    coarse = torch.randn(1, 8, 3, 5, generator=torch.Generator().manual_seed(0))
    fine = coarse.repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(down(fine).mean(1), fine.mean(1)[:, ::2, ::2])
    assert up(coarse).shape == fine.shape
    torch.testing.assert_close(up(coarse), fine)


def test_forward_dispatches_by_name(randn):
    image, latent = picture(1, 32, 64), randn(1, 32, 1, 2)
    assert torch.equal(AUTOENCODER(image), AUTOENCODER.encode_moments(image))
    assert torch.equal(AUTOENCODER(image, fn="encode_moments"), AUTOENCODER.encode_moments(image))
    assert torch.equal(AUTOENCODER(latent, fn="sample"), AUTOENCODER.sample(latent))
    assert torch.equal(AUTOENCODER(latent, fn="decode"), AUTOENCODER.decode(latent))
    with pytest.raises(ValueError, match="fn: expected 'encode_moments', 'sample' or 'decode', found 'encode'"):
        AUTOENCODER(image, fn="encode")


@pytest.mark.parametrize("shape", [(1, 3, 33, 32), (1, 3, 32, 48), (1, 3, 0, 32)])
def test_sizes_off_the_grid_are_refused(shape):
    with pytest.raises(ValueError, match="multiples of 32, found float32"):
        AUTOENCODER.encode_moments(torch.zeros(shape))


@pytest.mark.parametrize(
    ("method", "value", "message"),
    [
        ("encode_moments", torch.zeros(3, 32, 32), r"image: expected shape \[\*, 3, \*, \*\]"),
        ("encode_moments", torch.zeros(1, 3, 32, 32, dtype=torch.uint8), "image: expected a floating tensor"),
        ("sample", torch.zeros(1, 31, 8, 8), r"moments: expected shape \[\*, 32, \*, \*\], found float32\[1, 31"),
        ("decode", torch.zeros(1, 2048), r"latents: expected shape"),
    ],
)
def test_refusals_name_the_argument(method, value, message):
    with pytest.raises(ValueError, match=message):
        getattr(AUTOENCODER, method)(value)
