"""f32c32 autoencoder: pictures to 32 channels at a 32nd of the size, and back.

In the spirit of DC-AE (arXiv 2410.10733, section 3.2): space is folded into channels, and every change of
resolution has a shortcut without parameters that averages or duplicates channels.  No layer looks across rows.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from fmcheck.tiny.checks import describe, float_tensor
from fmcheck.tiny.config import TinyConfig
from fmcheck.tiny.layers import conv

FOLD = 8  # pixels folded at once at the picture's end; two stages of 2 follow


def average_channels(x: Float[Tensor, "B c h w"], channels: int) -> Float[Tensor, "B channels h w"]:
    """Mean over groups of neighbouring channels."""
    rows, _, height, width = x.shape
    return x.reshape(rows, channels, -1, height, width).mean(dim=2)


def duplicate_channels(x: Float[Tensor, "B c h w"], channels: int) -> Float[Tensor, "B channels h w"]:
    """Every channel ``channels / c`` times in a row."""
    return x.repeat_interleave(channels // x.shape[1], dim=1)


class Residual(nn.Module):
    """``x + conv(silu(conv(x)))`` at one resolution, half as wide inside."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = conv(width, width // 2)
        # SiLU leaves about a third of the power of a normal input.
        self.second = conv(width // 2, width, gain=1.5)

    def forward(self, x: Float[Tensor, "B c h w"]) -> Float[Tensor, "B c h w"]:
        """Add the residual; shape and dtype stay."""
        return x + self.second(F.silu(self.first(x)))  # type: ignore[no-any-return]


class Down(nn.Module):
    """Half the size: convolution and folding, plus the averaged folding of the input."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.outputs = outputs
        self.conv = conv(inputs, outputs // 4)

    def forward(self, x: Float[Tensor, "B c h w"]) -> Float[Tensor, "B d h/2 w/2"]:
        """Fold two by two cells into channels; h and w must be even."""
        shortcut = average_channels(F.pixel_unshuffle(x, 2), self.outputs)
        return F.pixel_unshuffle(self.conv(x), 2) + shortcut


class Up(nn.Module):
    """Twice the size: convolution and unfolding, plus the unfolded duplicates of the input."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.outputs = outputs
        # One cell is enough here: the residual that follows looks around at four times the cells.
        self.conv = conv(inputs, 4 * outputs, size=1)

    def forward(self, x: Float[Tensor, "B c h w"]) -> Float[Tensor, "B d 2*h 2*w"]:
        """Unfold channels into two by two cells."""
        shortcut = F.pixel_shuffle(duplicate_channels(x, 4 * self.outputs), 2)
        return F.pixel_shuffle(self.conv(x), 2) + shortcut


class Autoencoder(nn.Module):
    """Deterministic autoencoder between pictures ``[B, 3, H, W]`` in [-1, 1] and the flow's latents.

    ``encode_moments`` ends in the flow's units, ``(latent - shift) * scale``; ``sample`` goes back to the
    decoder's units, ``moments / scale + shift``.  Both ends of the flow use the same pair of calls.
    """

    def __init__(self, config: TinyConfig) -> None:
        super().__init__()
        narrow, wide, channels = config.autoencoder_narrow, config.autoencoder_wide, config.latent_channels
        self.channels = channels
        self.scale = config.latent_scale
        self.shift = config.latent_shift
        folded = 3 * FOLD * FOLD
        self.encoder = nn.Sequential(
            conv(folded, narrow), Residual(narrow), Down(narrow, wide), Residual(wide), Down(wide, wide), Residual(wide)
        )
        # The decoder's units are 1 / scale wide, so that the flow's are about 1.
        self.to_latent = conv(wide, channels, gain=0.38 / config.latent_scale)
        self.from_latent = conv(channels, wide, gain=config.latent_scale)
        self.decoder = nn.Sequential(Residual(wide), Up(wide, wide), Residual(wide), Up(wide, narrow), Residual(narrow))
        self.to_pixels = conv(narrow, folded, gain=0.13)
        self._share_within_fold(self.to_pixels)

    def forward(self, x: Tensor, fn: str = "encode_moments") -> Tensor:
        """Call ``encode_moments``, ``sample`` or ``decode`` by name; ``ValueError`` for any other name."""
        if fn == "encode_moments":
            return self.encode_moments(x)
        if fn == "sample":
            return self.sample(x)
        if fn == "decode":
            return self.decode(x)
        raise ValueError(f"fn: expected 'encode_moments', 'sample' or 'decode', found {fn!r}")

    def encode_moments(self, image: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B c H/32 W/32"]:
        """Picture to latent in the flow's units; ``ValueError`` unless H and W are positive multiples of 32."""
        float_tensor("image", image, (None, 3, None, None))
        if any(size < 32 or size % 32 for size in image.shape[2:]):
            raise ValueError(f"image: expected height and width to be multiples of 32, found {describe(image)}")
        hidden = self.encoder(F.pixel_unshuffle(image, FOLD))
        latent = self.to_latent(hidden) + average_channels(hidden, self.channels)
        return (latent - self.shift) * self.scale  # type: ignore[no-any-return]

    def sample(self, moments: Float[Tensor, "B c h w"]) -> Float[Tensor, "B c h w"]:
        """Latent for :meth:`decode` from moments; deterministic, as the moments have no variance."""
        float_tensor("moments", moments, (None, self.channels, None, None))
        return moments / self.scale + self.shift

    def decode(self, latents: Float[Tensor, "B c h w"]) -> Float[Tensor, "B 3 32*h 32*w"]:
        """Latent in the decoder's units to a picture; tanh keeps it inside [-1, 1] and smooth."""
        float_tensor("latents", latents, (None, self.channels, None, None))
        hidden = self.from_latent(latents)
        hidden = self.decoder(hidden)
        return torch.tanh(F.pixel_shuffle(self.to_pixels(hidden), FOLD))

    @staticmethod
    def _share_within_fold(layer: nn.Conv2d) -> None:
        """Start with one filter per colour for all pixels of a fold (ICNR, arXiv 1707.02937): no checkerboard."""
        first = layer.weight.detach()[:: FOLD * FOLD].clone()
        with torch.no_grad():
            layer.weight.copy_(first.repeat_interleave(FOLD * FOLD, dim=0))
