"""Layouts: which number of a latent stands where in a token, and factors a channel."""

import pytest
import torch

from fmcheck.errors import DeclarationError
from fmcheck.flow import channelwise, pack, to_decoder, to_state
from fmcheck.spec import FlowSpec

C, H, W = 3, 4, 6


def numbered(*shape):
    return torch.arange(torch.tensor(shape).prod(), dtype=torch.float64).reshape(shape)


@pytest.mark.parametrize("order", ["channels_first", "channels_last"])
@pytest.mark.parametrize("patch", [1, 2])
def test_every_number_lands_where_the_spec_says(patch, order):
    """Token `i` of row-major patches, element by element."""
    latent = numbered(2, C, H, W)
    spec = FlowSpec(latent_channels=C, downsampling=1, token_patch=patch, token_order=order)
    tokens = pack(latent, spec)
    assert tokens.shape == (2, (H // patch) * (W // patch), C * patch * patch)
    for c in range(C):
        for y in range(H):
            for x in range(W):
                token = (y // patch) * (W // patch) + x // patch
                inside = (y % patch) * patch + x % patch
                element = c * patch**2 + inside if order == "channels_first" else inside * C + c
                assert tokens[1, token, element] == latent[1, c, y, x]


def test_frames_come_before_rows():
    latent = numbered(1, C, 2, H, W)
    tokens = pack(latent, FlowSpec(latent_channels=C, downsampling=1, token_patch=2, latent_frames=2))
    assert tokens.shape == (1, 12, 12)
    assert tokens[0, 6, 0] == latent[0, 0, 1, 0, 0]


def test_without_tokens_the_latent_is_the_state():
    latent = numbered(1, C, H, W)
    assert pack(latent, FlowSpec()) is latent


def test_a_size_that_tokens_do_not_fill_is_named():
    with pytest.raises(DeclarationError, match=r"divisible by 4; found \(1, 3, 4, 6\)"):
        pack(numbered(1, C, H, W), FlowSpec(latent_channels=C, downsampling=1, token_patch=4))


@pytest.mark.parametrize("shape", [(2, C, H, W), (2, C, 1, H, W)])
def test_a_factor_a_channel(shape):
    state = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    spec = FlowSpec(latent_channels=C, latent_scale=(0.5, 2.0, 4.0), latent_shift=(1.0, 0.0, -1.0))
    latent = to_decoder(state, spec)
    for c, (scale, shift) in enumerate(((0.5, 1.0), (2.0, 0.0), (4.0, -1.0))):
        torch.testing.assert_close(latent[:, c], state[:, c] / scale + shift, rtol=0, atol=0)
    torch.testing.assert_close(to_state(latent, spec), state, rtol=1e-14, atol=1e-14)
    assert channelwise(3.0, state).shape == ()
