"""The tiny text-to-image flow-matching model: sampler, evaluation interface and (inherited) training loss."""

import warnings
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from fmcheck.tiny.autoencoder import Autoencoder
from fmcheck.tiny.checks import describe, finite_number, float_tensor, positive_int, random_generator, token_tensors
from fmcheck.tiny.config import TinyConfig
from fmcheck.tiny.loss import FlowMatchingLoss
from fmcheck.tiny.text import TextVariationalEncoder
from fmcheck.tiny.tokenizer import WordTokenizer
from fmcheck.tiny.velocity import VelocityTransformer


class TimeGrid(NamedTuple):
    """Times of the sampler, float32: edges from 0 to 1, midpoints and lengths of the steps between them."""

    t_edges: Float[Tensor, " K+1"]
    t_mid: Float[Tensor, " K"]
    dt: Float[Tensor, " K"]


class TinyFlowModel(FlowMatchingLoss):
    """Prompt to picture by integrating a velocity from the text latent (t = 0) to the image latent (t = 1).

    The weights follow from ``config.seed`` alone; random generators of the process are left as they were.
    The integrated state, the text branch and the autoencoder are float32; ``fm_transformers`` may be bfloat16.
    """

    def __init__(self, config: TinyConfig | None = None) -> None:
        super().__init__()
        self.config = config if config is not None else TinyConfig()
        self.tokenizer = WordTokenizer(self.config.max_length)
        if self.tokenizer.vocab_size != self.config.vocab_size:
            raise ValueError(f"vocab_size: expected {self.tokenizer.vocab_size}, found {self.config.vocab_size}")
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            # torch.manual_seed would also reseed the accelerators, which the fork does not bring back.
            torch.default_generator.manual_seed(self.config.seed)
            self.text_encoder = TextVariationalEncoder(self.config)
            self.fm_transformers = VelocityTransformer(self.config)
            self.autoencoder = Autoencoder(self.config)
            self.latent_fallback = self._near_identity(self.config.latent_channels)

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.latent_fallback.weight.device

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """``(C, height / 32, width / 32)``; ``ValueError`` unless both are ints and positive multiples of 32."""
        factor = self.config.downsampling
        for name, value in (("height", height), ("width", width)):
            if positive_int(name, value) % factor:
                raise ValueError(f"{name}: expected a multiple of {factor}, found {value}")
        return self.config.latent_channels, height // factor, width // factor

    def initial_state(self, z_text: Float[Tensor, "B D"], height: int, width: int) -> Float[Tensor, "B C h w"]:
        """Text latent as the start of the flow, float32.

        A reshape when the sizes agree (256x256, but also 128x512).  Otherwise, with a ``UserWarning``, the native
        latent resized and sent through ``latent_fallback``, which exists since construction: a layer made here
        would be random, and the start would drift away from what was trained.
        """
        channels, h, w = self.latent_shape(height, width)
        float_tensor("z_text", z_text, (None, None))
        z_text = z_text.to(torch.float32)
        if z_text.shape[1] == channels * h * w:
            return z_text.reshape(-1, channels, h, w)
        # Any other length has no native picture to resize.
        float_tensor("z_text", z_text, (None, self.config.text_latent))
        warnings.warn(
            f"the text latent has {z_text.shape[1]} numbers but a {height}x{width} picture needs {channels * h * w}: "
            "resizing through latent_fallback",
            UserWarning,
            stacklevel=2,
        )
        side = self.config.native_grid
        native = z_text.reshape(-1, channels, side, side)
        resized = F.interpolate(native, size=(h, w), mode="bilinear", align_corners=False)
        return self.latent_fallback(resized.movedim(1, -1)).movedim(-1, 1).contiguous()  # type: ignore[no-any-return]

    def time_grid(self, num_steps: int, device: torch.device | str = "cpu") -> TimeGrid:
        """Quantiles of the training times: ``t_edges = sigmoid(Normal(m, s).icdf(linspace(0, 1, K + 1)))``.

        The quantiles 0 and 1 are exact: icdf gives -inf and +inf, whose sigmoids are 0 and 1, so that the
        steps sum to the whole path.  Raises ``ValueError`` unless ``num_steps`` is a positive int.
        """
        steps = positive_int("num_steps", num_steps)
        # On the CPU, so that every device integrates over the same bits.
        q = torch.linspace(0.0, 1.0, steps + 1, dtype=torch.float32, device="cpu")
        normal = torch.distributions.Normal(self.config.grid_mean, self.config.grid_std, validate_args=False)
        t_edges = torch.sigmoid(normal.icdf(q)).to(torch.float32)  # type: ignore[no-untyped-call]
        t_mid = (t_edges[:-1] + t_edges[1:]) / 2
        return TimeGrid(t_edges.to(device), t_mid.to(device), t_edges.diff().to(device))

    def log_snr(self, t: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """``4 - 8 t`` with the default configuration, float32."""
        return self.config.log_snr_start + self.config.log_snr_slope * t.to(torch.float32)

    def velocities(
        self, x: Float[Tensor, "B C h w"], t: Float[Tensor, ""], guided: bool
    ) -> tuple[Float[Tensor, "B C h w"], Float[Tensor, "B C h w"] | None]:
        """Conditional and, if ``guided``, unconditional velocity at the scalar time ``t``.

        Guidance doubles the batch in one call, ``[x; x]`` with the second half null; without it the second
        element is None.
        """
        batch = x.shape[0]
        x_cat = torch.cat([x, x]) if guided else x
        rows = x_cat.shape[0]
        log_snr = self.log_snr(t).to(x.device).reshape(1).repeat(rows)
        null_indicator = torch.zeros(rows, dtype=torch.bool, device=x.device)
        null_indicator[batch:] = True
        v_all = self.fm_transformers(x_cat, log_snr, null_indicator)
        return (v_all[:batch], v_all[batch:]) if guided else (v_all, None)

    def combine(
        self, v_cond: Float[Tensor, "B C h w"], v_uncond: Float[Tensor, "B C h w"], cfg_scale: float
    ) -> Float[Tensor, "B C h w"]:
        """Classifier-free guidance ``(1 + w) v_cond - w v_uncond`` (arXiv 2207.12598, equation 6), float32."""
        return (1 + cfg_scale) * v_cond.to(torch.float32) - cfg_scale * v_uncond.to(torch.float32)

    def integrate(self, x: Float[Tensor, "B C h w"], grid: TimeGrid, cfg_scale: float) -> Float[Tensor, "B C h w"]:
        """Euler steps over ``grid`` with the velocity at each midpoint time; B rows throughout."""
        # In bfloat16 the small steps at both ends of the grid would vanish in the sum.
        x = x.to(torch.float32)
        for t, dt in zip(grid.t_mid, grid.dt, strict=True):
            v_cond, v_uncond = self.velocities(x, t, guided=cfg_scale != 0)
            v = v_cond.to(torch.float32) if v_uncond is None else self.combine(v_cond, v_uncond, cfg_scale)
            x = x + dt * v
        return x

    def decode_state(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B 3 H W"]:
        """Pictures of the integrated state, through the inverse of what training encodes with."""
        return self.autoencoder.decode(self.autoencoder.sample(x))

    @torch.no_grad()
    def generate(
        self,
        input_ids: Int[Tensor, "2*B L"],
        attention_mask: Bool[Tensor, "2*B L"] | Int[Tensor, "2*B L"],
        cfg_scale: float,
        num_steps: int,
        generator: torch.Generator,
        height: int,
        width: int,
    ) -> Float[Tensor, "B 3 height width"]:
        """Pictures in [-1, 1], float32, of the first half of the prompts.

        The interface of the evaluation script: 2B rows, conditional prompts first, then the prompts to guide
        away from.  The velocity network has no text input, so the second half can only mean "unconditional",
        and anything but empty prompts there draws a ``UserWarning``.  ``cfg_scale`` 0 switches guidance off.
        Noise comes from ``generator`` alone.  Training modes are left as found.
        Raises ``ValueError`` naming the argument that does not fit.
        """
        token_tensors(input_ids, attention_mask)
        if input_ids.shape[0] % 2:
            raise ValueError(f"input_ids: expected an even number of rows (2B), found {describe(input_ids)}")
        cfg_scale = finite_number("cfg_scale", cfg_scale)
        positive_int("num_steps", num_steps)
        random_generator("generator", generator)
        self.latent_shape(height, width)
        batch = input_ids.shape[0] // 2
        self._warn_if_unused(input_ids[batch:], attention_mask[batch:])
        ids, mask = input_ids[:batch].to(self.device), attention_mask[:batch].to(self.device)

        modes = [(module, module.training) for module in self.modules()]
        try:
            if any(training for _, training in modes):
                self.eval()
            z_text = self.text_encoder(ids, mask, generator).z
            x = self.initial_state(z_text, height, width)
            x = self.integrate(x, self.time_grid(num_steps, self.device), cfg_scale)
            return self.decode_state(x)
        finally:
            for module, training in modes:
                module.training = training

    def _warn_if_unused(self, input_ids: Int[Tensor, "B L"], attention_mask: Tensor) -> None:
        words = attention_mask.to(torch.bool) & (input_ids != self.tokenizer.bos_id)
        if bool(words.any()):
            warnings.warn(
                "the guidance half of input_ids holds prompts that are not empty; they have no influence, because "
                "guidance is against the unconditional velocity",
                UserWarning,
                stacklevel=4,
            )

    @staticmethod
    def _near_identity(channels: int) -> nn.Linear:
        layer = nn.Linear(channels, channels)
        with torch.no_grad():
            layer.weight.copy_(torch.eye(channels) + 0.02 * torch.randn(channels, channels))
            layer.bias.zero_()
        return layer
