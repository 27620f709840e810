"""Every number that shapes the tiny text-to-image model, in one frozen record."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class TinyConfig:
    """Sizes and constants of the model; the defaults are the ones the weights are made for.

    Tensors they describe: images ``[B, 3, H, W]``, latents ``[B, latent_channels, H/32, W/32]``,
    text latents ``[B, text_latent]``.  Raises ``ValueError`` when the numbers contradict each other.

    Sources: a 32-channel, 32-fold autoencoder (DC-AE, arXiv 2410.10733); text latent of the size of
    the image latent (CrossFlow, arXiv 2412.15213); logit-normal times (Stable Diffusion 3, arXiv 2403.03206).
    """

    # Pictures and latents.
    latent_channels: int = 32
    downsampling: int = 32
    native_size: int = 256
    latent_scale: float = 0.41
    latent_shift: float = 0.15

    # Text.
    text_latent: int = 2048
    vocab_size: int = 30
    max_length: int = 16
    text_width: int = 128
    text_layers: int = 2
    text_heads: int = 4
    meta_queries: int = 16

    # Networks.
    autoencoder_narrow: int = 64
    autoencoder_wide: int = 128
    velocity_width: int = 128
    velocity_blocks: int = 4
    velocity_heads: int = 4
    mlp_ratio: int = 2

    # Flow.
    log_snr_start: float = 4.0
    log_snr_slope: float = -8.0
    grid_mean: float = 0.0
    grid_std: float = 1.0
    sigma_min: float = 1e-5
    null_probability: float = 0.1
    kl_weight: float = 0.03

    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse combinations that would only fail later, inside a reshape or as a silent NaN."""
        self._check_sizes()
        self._check_flow()

    @property
    def native_grid(self) -> int:
        """Height and width of the latent at the native picture size."""
        return self.native_size // self.downsampling

    def _check_sizes(self) -> None:
        if self.downsampling != 32:
            raise ValueError(f"downsampling: the autoencoder reduces by 32, found {self.downsampling}")
        if self.native_size <= 0 or self.native_size % self.downsampling:
            raise ValueError(f"native_size: expected a positive multiple of 32, found {self.native_size}")
        wanted = self.latent_channels * self.native_grid**2
        if self.text_latent != wanted:
            raise ValueError(f"text_latent: expected latent_channels * h * w = {wanted}, found {self.text_latent}")
        if self.text_latent % self.meta_queries:
            raise ValueError(f"meta_queries: {self.meta_queries} does not divide text_latent {self.text_latent}")
        if self.text_width % self.text_heads:
            raise ValueError(f"text_heads: {self.text_heads} does not divide text_width {self.text_width}")
        if self.velocity_width % self.velocity_heads or self.velocity_width % 4:
            raise ValueError(f"velocity_width: {self.velocity_width} must be a multiple of velocity_heads and of 4")

    def _check_flow(self) -> None:
        for name in ("grid_std", "latent_scale"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name}: expected a positive finite number, found {value}")
        for name in ("sigma_min", "null_probability"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ValueError(f"{name}: expected a number in [0, 1], found {value}")
