"""An SD3-like pipeline in the manner of diffusers: a pipeline object, a scheduler with `set_timesteps` and `step`.

Conventions: the transformer is told timestep = 1000 sigma and predicts noise - data; sigmas are `linspace(1, 0.001,
K)` shifted by 3, then 0; Euler at the left edge. Unconditional half first, `u + s (c - u)`, a guidance scale up to 1
is off; the unconditional text is the negative prompt ("" by default). vae: `latents / 1.5 + 0.06`, outside of it.
Images (B, 3, H, W) in [-1, 1]. Latents are float32, the transformer may be lower. Sides: multiples of 8.
"""

from dataclasses import dataclass
from types import SimpleNamespace
from zlib import crc32

import torch
from torch import Tensor, nn


@dataclass
class TextEncoderOutput:
    last_hidden_state: Tensor
    pooler_output: Tensor


@dataclass
class StableFlowOutput:
    images: Tensor


class WordTokenizer:
    max_length = 24

    def __call__(self, prompts: list[str]) -> tuple[Tensor, Tensor]:
        ids = torch.zeros(len(prompts), self.max_length, dtype=torch.long)
        for row, prompt in enumerate(prompts):
            words = [1, *[2 + crc32(word.encode()) % 510 for word in prompt.split()][: self.max_length - 1]]
            ids[row, : len(words)] = torch.tensor(words)
        return ids, (ids > 0).long()


class ClipLikeEncoder(nn.Module):
    def __init__(self, dim: int = 32):
        super().__init__()
        self.token_embedding, self.position = nn.Embedding(512, dim), nn.Embedding(24, dim)
        self.mix = nn.MultiheadAttention(dim, 4, batch_first=True)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> TextEncoderOutput:
        x = self.token_embedding(input_ids) + 0.1 * self.position.weight[: input_ids.shape[1]]
        x = x + self.mix(x, x, x, key_padding_mask=attention_mask == 0, need_weights=False)[0]
        x = x * attention_mask[..., None].to(x.dtype)
        return TextEncoderOutput(x, x.sum(1) / attention_mask.sum(1, keepdim=True))


class MiniMMDiT(nn.Module):
    def __init__(self, channels: int = 8, dim: int = 32):
        super().__init__()
        self.embed, self.proj_out = nn.Conv2d(channels, dim, 3, padding=1), nn.Conv2d(dim, channels, 3, padding=1)
        self.time, self.text, self.attend = nn.Linear(4, dim), nn.Linear(dim, dim), nn.Linear(dim, dim)

    def forward(self, hidden_states, timestep, encoder_hidden_states, pooled_projections, return_dict=True):
        angle = timestep.float()[:, None] / 1000 * torch.tensor([1.5, 3.0], device=timestep.device)
        vec = self.time(torch.cat((angle.sin(), angle.cos()), 1).to(hidden_states.dtype)) + self.text(
            pooled_projections
        )
        x = self.embed(hidden_states) + vec[:, :, None, None]
        tokens = x.flatten(2).transpose(1, 2)
        weights = (self.attend(tokens) @ encoder_hidden_states.transpose(1, 2) / 6).softmax(-1)
        x = x + (weights @ encoder_hidden_states).transpose(1, 2).reshape(x.shape)
        sample = self.proj_out(torch.tanh(x)) * 2
        return SimpleNamespace(sample=sample) if return_dict else (sample,)


class TinyVae(nn.Module):
    def __init__(self, channels: int = 8):
        super().__init__()
        self.config = SimpleNamespace(scaling_factor=1.5, shift_factor=0.06, latent_channels=channels)
        self.enc = nn.Conv2d(3, channels, 8, stride=8)
        self.dec = nn.ConvTranspose2d(channels, 3, 8, stride=8)

    def encode(self, x: Tensor) -> SimpleNamespace:
        return SimpleNamespace(mode=self.enc(x))

    def decode(self, z: Tensor, return_dict: bool = True):
        image = self.dec(z).tanh()
        return SimpleNamespace(sample=image) if return_dict else (image,)


class FlowScheduler:
    def __init__(self, shift: float = 3.0, num_train_timesteps: int = 1000):
        self.shift, self.num_train_timesteps = shift, num_train_timesteps

    def set_timesteps(self, num_inference_steps: int, device=None) -> None:
        if num_inference_steps < 1:
            raise ValueError(f"num_inference_steps must be at least 1, got {num_inference_steps}")
        sigmas = torch.linspace(1, 1 / self.num_train_timesteps, num_inference_steps, dtype=torch.float64)
        sigmas = self.shift * sigmas / (1 + (self.shift - 1) * sigmas)
        self.timesteps = (sigmas * self.num_train_timesteps).to(device, torch.float32)
        self.sigmas = torch.cat((sigmas, sigmas.new_zeros(1))).to(device, torch.float32)
        self.step_index = 0

    def step(self, model_output: Tensor, sample: Tensor) -> Tensor:
        delta = self.sigmas[self.step_index + 1] - self.sigmas[self.step_index]
        self.step_index += 1
        return sample.float() + delta * model_output.float()


class StableFlowPipeline:
    vae_scale_factor = 8

    def __init__(self, tokenizer, text_encoder, transformer, vae, scheduler):
        self.tokenizer, self.text_encoder, self.transformer = tokenizer, text_encoder, transformer
        self.vae, self.scheduler = vae, scheduler

    @property
    def device(self):
        return next(self.transformer.parameters()).device

    def encode_prompt(self, prompts: list[str]) -> tuple[Tensor, Tensor]:
        ids, mask = (x.to(self.device) for x in self.tokenizer(prompts))
        out = self.text_encoder(ids, attention_mask=mask)
        return out.last_hidden_state, out.pooler_output

    @torch.no_grad()
    def __call__(self, prompt, height=64, width=64, num_inference_steps=28, guidance_scale=7.0,
                 negative_prompt=None, generator=None) -> StableFlowOutput:  # fmt: skip
        if height % self.vae_scale_factor or width % self.vae_scale_factor:
            raise ValueError(f"`height` and `width` have to be divisible by 8 but are {height} and {width}.")
        prompt = [prompt] if isinstance(prompt, str) else list(prompt)
        do_cfg = guidance_scale > 1
        embeds, pooled = self.encode_prompt(prompt)
        if do_cfg:
            negative = (
                [negative_prompt or ""] * len(prompt) if not isinstance(negative_prompt, list) else negative_prompt
            )
            neg_embeds, neg_pooled = self.encode_prompt(negative)
            embeds, pooled = torch.cat((neg_embeds, embeds)), torch.cat((neg_pooled, pooled))
        shape = (len(prompt), self.vae.config.latent_channels, height // 8, width // 8)
        latents = torch.randn(shape, generator=generator, device=self.device, dtype=torch.float32)
        self.scheduler.set_timesteps(num_inference_steps, device=self.device)
        for t in self.scheduler.timesteps:
            model_input = torch.cat((latents, latents)) if do_cfg else latents
            noise_pred = self.transformer(
                hidden_states=model_input.to(embeds.dtype),
                timestep=t.expand(len(model_input)),
                encoder_hidden_states=embeds,
                pooled_projections=pooled,
                return_dict=False,
            )[0]
            if do_cfg:
                uncond, text = noise_pred.float().chunk(2)
                noise_pred = uncond + guidance_scale * (text - uncond)
            latents = self.scheduler.step(noise_pred, latents)
        latents = latents / self.vae.config.scaling_factor + self.vae.config.shift_factor
        return StableFlowOutput(self.vae.decode(latents.to(embeds.dtype), return_dict=False)[0].float())


def load_pipeline(torch_dtype=torch.float32, device="cpu") -> StableFlowPipeline:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        parts = [part.to(device, torch_dtype).eval() for part in (ClipLikeEncoder(), MiniMMDiT(), TinyVae())]
    return StableFlowPipeline(WordTokenizer(), *parts, FlowScheduler())


def train_step(pipe: StableFlowPipeline, prompts: list[str], images: Tensor, generator) -> Tensor:
    """Mean squared error of noise - data at logit-normal times; a tenth of the prompts is dropped."""
    config = pipe.vae.config
    clean = (pipe.vae.encode(images).mode - config.shift_factor) * config.scaling_factor
    noise = torch.randn(clean.shape, generator=generator, device=clean.device)
    sigma = torch.randn(len(clean), generator=generator, device=clean.device).sigmoid()
    drop = torch.rand(len(clean), generator=generator, device=clean.device) < 0.1
    embeds, pooled = pipe.encode_prompt(["" if d else p for p, d in zip(prompts, drop.tolist(), strict=True)])
    s = sigma[:, None, None, None]
    noisy = (1 - s) * clean + s * noise
    predicted = pipe.transformer(noisy, sigma * 1000, embeds, pooled).sample
    return ((predicted - (noise - clean)) ** 2).mean()
