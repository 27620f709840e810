"""The training half of the model: one flow-matching loss, made of pieces that can be replaced one by one."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from fmcheck.tiny.autoencoder import Autoencoder
from fmcheck.tiny.checks import float_tensor, random_generator, token_tensors
from fmcheck.tiny.config import TinyConfig
from fmcheck.tiny.text import TextLatent, TextVariationalEncoder
from fmcheck.tiny.velocity import VelocityTransformer


class LossTerms(NamedTuple):
    """Scalars: ``loss = flow + kl_weight * kl``, with ``kl`` in nats per latent number."""

    loss: Float[Tensor, ""]
    flow: Float[Tensor, ""]
    kl: Float[Tensor, ""]


class FlowMatchingLoss(nn.Module):
    """Flow matching from the text latent ``x0`` to the picture's latent ``x1``.

    The class that inherits from it provides the networks, ``initial_state`` and ``log_snr``, so that
    training and sampling cannot disagree about them.

    Sources: path and target, Lipman et al. 2022 (arXiv 2210.02747), section 4.1, conditional OT; null rows whose
    targets belong to other prompts, CrossFlow (arXiv 2412.15213), section 4.2.
    """

    config: TinyConfig
    text_encoder: TextVariationalEncoder
    fm_transformers: VelocityTransformer
    autoencoder: Autoencoder

    def initial_state(self, z_text: Float[Tensor, "B D"], height: int, width: int) -> Float[Tensor, "B C h w"]:
        """Text latent as the start of the flow."""
        raise NotImplementedError

    def log_snr(self, t: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Time as the velocity network wants it."""
        raise NotImplementedError

    def training_loss(
        self,
        images: Float[Tensor, "B 3 H W"],
        input_ids: Int[Tensor, "B L"],
        attention_mask: Bool[Tensor, "B L"] | Int[Tensor, "B L"],
        generator: torch.Generator,
    ) -> LossTerms:
        """Loss of one batch of pictures in [-1, 1] and their prompts.

        All randomness is drawn from ``generator``, in the order noise of the text latent, times, null rows,
        their permutation.  The autoencoder gets no gradient.
        Raises ``ValueError`` naming the argument that does not fit.
        """
        random_generator("generator", generator)
        token_tensors(input_ids, attention_mask)
        batch = input_ids.shape[0]
        float_tensor("images", images, (batch, 3, None, None))
        device = self.fm_transformers.embed.weight.device
        x1 = self.encode_images(images.to(device))
        text = self.text_encoder(input_ids.to(device), attention_mask.to(device), generator)
        x0 = self.initial_state(text.z, images.shape[2], images.shape[3])
        flow = self.flow_loss(x0, x1, generator)
        kl = self.kl_divergence(text)
        return LossTerms(flow + self.config.kl_weight * kl, flow, kl)

    def flow_loss(
        self, x0: Float[Tensor, "B C h w"], x1: Float[Tensor, "B C h w"], generator: torch.Generator
    ) -> Float[Tensor, ""]:
        """Mean squared error of the velocity between starts and ends of paths; times and null rows as drawn."""
        batch, device = x0.shape[0], x0.device
        t = self.sample_times(batch, generator).to(device)
        null = self.sample_null(batch, generator).to(device)
        x1 = self.permute_null_targets(x1, null, generator)
        velocity = self.fm_transformers(self.interpolate(x0, x1, t), self.log_snr(t), null)
        return F.mse_loss(velocity.to(torch.float32), self.velocity_target(x0, x1))

    def encode_images(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        """End of the path, in the flow's units, cut off from the autoencoder's parameters."""
        with torch.no_grad():
            return self.autoencoder.encode_moments(images.to(torch.float32)).detach()

    def sample_times(self, batch: int, generator: torch.Generator) -> Float[Tensor, " B"]:
        """``t = sigmoid(Normal(m, s))``, one per row, float32, on the generator's device."""
        normal = torch.randn(batch, generator=generator, device=generator.device, dtype=torch.float32)
        return torch.sigmoid(self.config.grid_mean + self.config.grid_std * normal)

    def sample_null(self, batch: int, generator: torch.Generator) -> Bool[Tensor, " B"]:
        """Choose the rows that train the unconditional velocity, each with ``null_probability``: True there."""
        uniform = torch.rand(batch, generator=generator, device=generator.device, dtype=torch.float32)
        return uniform < self.config.null_probability

    def permute_null_targets(
        self, x1: Float[Tensor, "B C h w"], null: Bool[Tensor, " B"], generator: torch.Generator
    ) -> Float[Tensor, "B C h w"]:
        """Shuffle ``x1`` among the null rows only: their start must say nothing about their end."""
        rows = null.nonzero().flatten()
        order = torch.randperm(len(rows), generator=generator, device=generator.device).to(rows.device)
        shuffled = x1.clone()
        shuffled[rows] = x1[rows[order]]
        return shuffled

    def interpolate(
        self, x0: Float[Tensor, "B C h w"], x1: Float[Tensor, "B C h w"], t: Float[Tensor, " B"]
    ) -> Float[Tensor, "B C h w"]:
        """``x_t = (1 - (1 - s_min) t) x0 + t x1``."""
        # Without the trailing axes a [B] time multiplies along the width whenever w happens to be B.
        t = t[:, None, None, None]
        return (1 - (1 - self.config.sigma_min) * t) * x0 + t * x1

    def velocity_target(self, x0: Float[Tensor, "B C h w"], x1: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
        """Differentiate the path with respect to t: ``x1 - (1 - s_min) x0``."""
        return x1 - (1 - self.config.sigma_min) * x0

    def kl_divergence(self, text: TextLatent) -> Float[Tensor, ""]:
        """KL of the text posterior to the standard normal, mean over rows and latent numbers."""
        return 0.5 * (text.mu.square() + text.log_var.exp() - 1 - text.log_var).mean()
