"""A picture out of a video model: latents `[B, C, 1, h, w]`, standardised with one mean and deviation a channel.

Conventions: the network is told timestep = 1000 sigma and predicts noise - data. Sigmas `linspace(1, 1/K, K)`,
shifted by 2.5, stretched so that the last one is 0.02 (K > 1), then 0; Euler at the left edge. Conditional call
first, then the negative one, `u + s (c - u)`; off for s <= 1. Decoder input `state * std + mean` a channel; it
returns `[B, 3, 1, H, W]`. The result is a dict with "images" `[B, 3, H, W]` in [-1, 1]. Sides are multiples of 8.
"""

import itertools
from types import SimpleNamespace

import torch
from torch import Tensor, nn

MEAN, STD = (-0.2, 0.1, 0.35, 0.0, -0.4, 0.25), (1.3, 0.8, 2.0, 1.1, 0.6, 1.7)


class CausalText(nn.Module):
    def __init__(self, dim: int = 32):
        super().__init__()
        self.wte, self.block = nn.Embedding(257, dim), nn.Linear(dim, dim)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> SimpleNamespace:
        x = self.wte(input_ids) * attention_mask[..., None].to(self.wte.weight)
        total = x.cumsum(1) / torch.arange(1, x.shape[1] + 1, device=x.device, dtype=x.dtype)[None, :, None]
        hidden = (x + torch.tanh(self.block(total) * 3)) * attention_mask[..., None].to(x)
        return SimpleNamespace(hidden_states=(x, hidden))


class VideoTransformer(nn.Module):
    def __init__(self, c: int = 6, dim: int = 32):
        super().__init__()
        self.patch, self.unpatch = nn.Conv3d(c, dim, (1, 3, 3), padding=(0, 1, 1)), nn.Conv3d(dim, c, 1)
        self.t_embed, self.ctx = nn.Linear(2, dim), nn.Linear(dim, dim)

    def forward(self, latents: Tensor, timestep: Tensor, context: Tensor, context_mask: Tensor) -> tuple[Tensor]:
        phase = timestep.float().reshape(-1, 1) * 0.003
        pooled = context.sum(1) / context_mask.sum(1, keepdim=True).to(context.dtype)
        bias = self.t_embed(torch.cat((phase.sin(), phase.cos()), 1).to(latents.dtype)) + self.ctx(2 * pooled)
        return (2 * self.unpatch(torch.sin(self.patch(latents) + bias[..., None, None, None])),)


class VideoVae(nn.Module):
    def __init__(self, c: int = 6):
        super().__init__()
        self.read, self.write = nn.Conv3d(3, c, (1, 8, 8), (1, 8, 8)), nn.ConvTranspose3d(c, 3, (1, 8, 8), (1, 8, 8))

    def encode(self, video: Tensor) -> Tensor:
        return self.read(video)

    def decode(self, z: Tensor) -> Tensor:
        return self.write(z).tanh()


class VideoPipe(nn.Module):
    def __init__(self):
        super().__init__()
        self.text_encoder, self.transformer, self.vae = CausalText(), VideoTransformer(), VideoVae()
        for name, values in (("latents_mean", MEAN), ("latents_std", STD)):
            self.register_buffer(name, torch.tensor(values).reshape(1, -1, 1, 1, 1), persistent=False)

    def embed(self, prompts: list[str], max_len: int = 80) -> tuple[Tensor, Tensor]:
        rows = [[256, *p.encode()][:max_len] for p in prompts]
        ids = torch.tensor([r + [0] * (max_len - len(r)) for r in rows], device=self.latents_mean.device)
        mask = torch.tensor([[1] * len(r) + [0] * (max_len - len(r)) for r in rows], device=ids.device)
        return self.text_encoder(ids, mask).hidden_states[-1], mask

    @staticmethod
    def sigmas(steps: int, shift: float = 2.5, terminal: float = 0.02) -> Tensor:
        s = torch.linspace(1, 1 / steps, steps, dtype=torch.float64)
        s = shift * s / (1 + (shift - 1) * s)
        if steps > 1:
            s = 1 - (1 - s) * (1 - terminal) / (1 - s[-1])
        return torch.cat((s, s.new_zeros(1))).float()

    @torch.no_grad()
    def text2image(self, prompts, negative="", height=64, width=64, steps=10, cfg=4.0, generator=None) -> dict:
        if height % 8 or width % 8:
            raise ValueError(f"height and width must be multiples of 8: {height}, {width}")
        if steps < 1:
            raise ValueError(f"steps must be positive: {steps}")
        context = self.embed(prompts)
        negative_context = self.embed([negative] * len(prompts)) if cfg > 1 else None
        device, dtype = self.latents_mean.device, context[0].dtype
        x = torch.randn(len(prompts), 6, 1, height // 8, width // 8, generator=generator, device=device)
        sigmas = self.sigmas(steps).to(device)
        for sigma, after in itertools.pairwise(sigmas):
            told = (1000 * sigma).expand(len(x))
            noise_pred = self.transformer(x.to(dtype), told, *context)[0].float()
            if negative_context is not None:
                unguided = self.transformer(x.to(dtype), told, *negative_context)[0].float()
                noise_pred = unguided + cfg * (noise_pred - unguided)
            x = x + (after - sigma) * noise_pred
        video = self.vae.decode((x * self.latents_std.float() + self.latents_mean.float()).to(dtype)).float()
        return {"images": video[:, :, 0], "sigmas": sigmas}

    def loss(self, prompts: list[str], images: Tensor, generator) -> Tensor:
        data = (self.vae.encode(images[:, :, None]) - self.latents_mean) / self.latents_std
        noise = torch.randn(data.shape, generator=generator, device=data.device)
        sigma = torch.randn(len(data), generator=generator, device=data.device).sigmoid()
        drop = torch.rand(len(data), generator=generator, device=data.device) < 0.1
        context = self.embed(["" if d else p for p, d in zip(prompts, drop.tolist(), strict=True)])
        s = sigma.reshape(-1, 1, 1, 1, 1)
        return nn.functional.mse_loss(
            self.transformer((1 - s) * data + s * noise, 1000 * sigma, *context)[0], noise - data
        )


def video_pipe(device=None, dtype=None) -> VideoPipe:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(10)
        return VideoPipe().to(device=device or "cpu", dtype=dtype or torch.float32)
