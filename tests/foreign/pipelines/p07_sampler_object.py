"""A `Sampler` object that holds the model and feeds it at most `rows_per_call` pictures at a time.

Conventions: t from 0 (noise) to 1 (data); the network is told 1000 (1 - t) and predicts dx/dt; weights, network
inputs and outputs in the network's dtype (bfloat16 by default), the state float32. Uniform steps, Euler with the
network asked in the middle. Every micro-batch is one doubled call, unconditional half first: `u + s (c - u)`; off at
s <= 1. The null text is a flag. The decoder takes `state / 0.7 + 0.3`. Images [-1, 1], float32; sides are multiples
of 16.
"""

import torch
from torch import Tensor, nn


class GlyphEncoder(nn.Module):
    def __init__(self, d: int = 32):
        super().__init__()
        self.emb, self.out = nn.Embedding(257, d), nn.Linear(d, d)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """int64 `[B, L]` twice to `[B, L, d]`, zeros where masked."""
        place = torch.arange(input_ids.shape[1], device=input_ids.device)[:, None]
        wave = torch.sin(place * torch.linspace(0.05, 1, self.emb.embedding_dim, device=place.device))
        hidden = torch.tanh(self.out(self.emb(input_ids) + wave.to(self.emb.weight)))
        return hidden * attention_mask[..., None].to(hidden.dtype)


class Velocity(nn.Module):
    def __init__(self, channels: int = 4, d: int = 32):
        super().__init__()
        self.first, self.last = nn.Conv2d(channels, d, 3, padding=1), nn.Conv2d(d, channels, 3, padding=1)
        self.clock, self.words, self.empty = nn.Linear(2, d), nn.Linear(d, d), nn.Parameter(torch.randn(d))

    def forward(self, x: Tensor, timestep: Tensor, is_null: Tensor, text: Tensor, mask: Tensor) -> Tensor:
        angle = timestep.float()[:, None] / 400
        pooled = text.sum(1) / mask.sum(1, keepdim=True).to(text.dtype)
        pooled = torch.where(is_null[:, None], self.empty, self.words(3 * pooled))
        bias = pooled + self.clock(torch.cat((angle.sin(), angle.cos()), 1).to(x.dtype))
        return 2 * self.last(torch.tanh(self.first(x) + bias[:, :, None, None]))


class Autoencoder(nn.Module):
    def __init__(self, channels: int = 4):
        super().__init__()
        self.to_z, self.to_rgb = nn.Conv2d(3, channels, 16, 16), nn.ConvTranspose2d(channels, 3, 16, 16)

    def encode(self, images: Tensor) -> Tensor:
        return self.to_z(images)

    def decode(self, z: Tensor) -> Tensor:
        return torch.tanh(self.to_rgb(z))


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.text_encoder, self.velocity, self.ae = GlyphEncoder(), Velocity(), Autoencoder()

    def loss(self, ids: Tensor, mask: Tensor, images: Tensor, generator: torch.Generator) -> Tensor:
        dtype = self.velocity.last.weight.dtype
        x1 = (self.ae.encode(images.to(dtype)).float() - 0.3) * 0.7
        x0 = torch.randn(x1.shape, generator=generator, device=x1.device)
        t = torch.rand(len(x1), generator=generator, device=x1.device)
        null = torch.rand(len(x1), generator=generator, device=x1.device) < 0.15
        xt = x0 + t[:, None, None, None] * (x1 - x0)
        v = self.velocity(xt.to(dtype), 1000 * (1 - t), null, self.text_encoder(ids, mask), mask)
        return (v.float() - (x1 - x0)).pow(2).mean()


class Sampler:
    def __init__(self, model: Model, steps: int = 20, scale: float = 4.0, rows_per_call: int = 2):
        if steps < 1 or rows_per_call < 1:
            raise ValueError(f"steps and rows_per_call must be positive: {steps}, {rows_per_call}")
        self.model, self.steps, self.scale, self.rows_per_call = model, steps, scale, rows_per_call

    def _velocity(self, x: Tensor, t: float, text: Tensor, mask: Tensor) -> Tensor:
        parts = []
        for x_, text_, mask_ in zip(*(whole.split(self.rows_per_call) for whole in (x, text, mask)), strict=True):
            n, on = len(x_), self.scale > 1
            if on:
                x_, text_, mask_ = (torch.cat((part, part)) for part in (x_, text_, mask_))
            null = torch.arange(len(x_), device=x.device) < (n if on else 0)
            time = torch.full((len(x_),), 1000 * (1 - t), device=x.device)
            v = self.model.velocity(x_.to(text.dtype), time, null, text_, mask_).float()
            parts.append(v[:n] + self.scale * (v[n:] - v[:n]) if on else v)
        return torch.cat(parts)

    @torch.no_grad()
    def __call__(self, ids: Tensor, mask: Tensor, height: int, width: int, generator: torch.Generator) -> Tensor:
        if height % 16 or width % 16:
            raise ValueError(f"{height}x{width} is not a multiple of 16")
        text = self.model.text_encoder(ids, mask)
        x = torch.randn(len(ids), 4, height // 16, width // 16, generator=generator, device=text.device)
        for k in range(self.steps):
            x = x + self._velocity(x, (k + 0.5) / self.steps, text, mask) / self.steps
        return self.model.ae.decode((x / 0.7 + 0.3).to(text.dtype)).float()


def tokenise(prompts: list[str], pad_to: int = 0) -> dict[str, Tensor]:
    rows = [[256, *p.encode()] for p in prompts]
    length = max(pad_to, *map(len, rows), 1)
    return {
        "ids": torch.tensor([r + [0] * (length - len(r)) for r in rows]),
        "mask": torch.tensor([[1] * len(r) + [0] * (length - len(r)) for r in rows]),
    }


def create(seed: int = 7, dtype: torch.dtype = torch.bfloat16, device: str = "cpu") -> Model:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Model().to(device, dtype).eval()
