"""Velocity network: a small diffusion transformer on latent cells, conditioned on log-SNR and a null flag."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from fmcheck.tiny.checks import describe, float_tensor
from fmcheck.tiny.config import TinyConfig
from fmcheck.tiny.layers import Attention, MixMlp, grid_positions, linear, normalise, sinusoids

# Angular frequencies for a log-SNR in [-4, 4]: the slowest is monotone over the range, the fastest still tells
# a thousand times apart after rounding to bfloat16.
SLOWEST, FASTEST = 0.1, 2.0

# Beside a time embedding of about 1: guidance shows before any training, but does not drown the rest.
NULL_STD = 0.35


class AdaptiveBlock(nn.Module):
    """Attention and MLP whose shift, scale and gate are a shared modulation plus the block's own table.

    Source: AdaLN-single of PixArt-alpha (arXiv 2310.00426, section 2.3).
    """

    def __init__(self, width: int, heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.attention = Attention(width, heads)
        self.mlp = MixMlp(width, mlp_ratio)
        self.table = nn.Parameter(0.1 * torch.randn(6, width))

    def forward(
        self, x: Float[Tensor, "N tokens width"], modulation: Float[Tensor, "N 6 width"], height: int
    ) -> Float[Tensor, "N tokens width"]:
        """Update the tokens of every row, a grid of ``height`` rows of cells, under that row's modulation."""
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = (modulation + self.table)[:, :, None, :].unbind(1)
        inner = normalise(x) * (1 + scale_a) + shift_a
        x = x + (0.5 + gate_a) * self.attention(inner, inner)
        inner = normalise(x) * (1 + scale_m) + shift_m
        return x + (0.5 + gate_m) * self.mlp(inner, height)  # type: ignore[no-any-return]


class VelocityTransformer(nn.Module):
    """``v(x, log_snr, null)`` for latents of any height and width, one token per cell (patch 1)."""

    def __init__(self, config: TinyConfig) -> None:
        super().__init__()
        width, channels = config.velocity_width, config.latent_channels
        self.width = width
        self.channels = channels
        self.extent = config.native_grid
        self.embed = linear(channels, width)
        self.time = nn.Sequential(linear(width, width, gain=1.4), nn.SiLU(), linear(width, width, gain=1.4))
        # Row 0 is added for conditional inputs, row 1 for unconditional ones.
        self.null = nn.Embedding(2, width)
        nn.init.normal_(self.null.weight, std=NULL_STD)
        self.modulate = linear(width, 6 * width, gain=0.5)
        self.blocks = nn.ModuleList(
            AdaptiveBlock(width, config.velocity_heads, config.mlp_ratio) for _ in range(config.velocity_blocks)
        )
        self.final = linear(width, 2 * width, gain=0.5)
        self.out = linear(width, channels, gain=0.8)

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the parameters, in which the network computes and answers."""
        return self.embed.weight.dtype

    def forward(
        self,
        x: Float[Tensor, "N c h w"],
        log_snr: Float[Tensor, " N"],
        null_indicator: Bool[Tensor, " N"],
    ) -> Float[Tensor, "N c h w"]:
        """Velocity of ``x``, in the dtype of the parameters.

        ``null_indicator`` is True for rows whose velocity is unconditional.
        Raises ``ValueError`` unless ``log_snr`` and ``null_indicator`` are 1-D with one entry per row.
        """
        self._check(x, log_snr, null_indicator)
        height, width = x.shape[-2:]
        condition = nn.functional.silu(self.condition(log_snr, null_indicator))
        places = grid_positions(height, width, self.width, self.extent, x.device).to(self.dtype)
        tokens = self.embed(x.to(self.dtype).flatten(2).transpose(1, 2)) + places
        modulation = self.modulate(condition).unflatten(-1, (6, self.width))
        for block in self.blocks:
            tokens = block(tokens, modulation, height)
        shift, scale = self.final(condition)[:, None, :].chunk(2, dim=-1)
        velocity = self.out(normalise(tokens) * (1 + scale) + shift)
        return velocity.transpose(1, 2).unflatten(2, (height, width)).contiguous()  # type: ignore[no-any-return]

    def condition(self, log_snr: Float[Tensor, " N"], null_indicator: Bool[Tensor, " N"]) -> Float[Tensor, "N width"]:
        """Embedding of time plus embedding of the null flag; the waves are float32 whatever the parameters are."""
        waves = sinusoids(log_snr, self.width, SLOWEST, FASTEST)
        return self.time(waves.to(self.dtype)) + self.null(null_indicator.long())  # type: ignore[no-any-return]

    def _check(self, x: object, log_snr: object, null_indicator: object) -> None:
        float_tensor("x", x, (None, self.channels, None, None))
        assert isinstance(x, Tensor)
        rows = x.shape[0]
        # [N, 1] would broadcast against [N] into an N x N table of times.
        float_tensor("log_snr", log_snr, (rows,))
        is_flag = isinstance(null_indicator, Tensor) and null_indicator.dtype == torch.bool
        if not is_flag or list(null_indicator.shape) != [rows]:  # type: ignore[attr-defined]
            raise ValueError(f"null_indicator: expected bool[{rows}], found {describe(null_indicator)}")
