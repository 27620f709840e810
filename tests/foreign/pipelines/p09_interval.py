"""Guidance in a limited interval (arXiv 2404.07724): outside of it only the conditional branch is evaluated.

Conventions: sigma from 1 to 0 in uniform steps, Euler at the left edge; the network is told sigma and predicts dx/dt
with t = 1 - sigma. Guidance `(1 + w) c - w u` holds where 0.17 <= t <= 0.83, else `c`; there the unconditional branch
is a second call after the conditional one; w = 0 is off. The decoder multiplies by 2 (`state / 0.5`) inside
`VAE.unscale`. `diffuse` is a generator of states behind `generate`. Images [-1, 1]; sides are multiples of 8.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

INTERVAL = (0.17, 0.83)


class TextTower(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb, self.rnn = nn.Embedding(257, 24), nn.Linear(24, 24)

    def forward(self, ids: Tensor, attention_mask: Tensor) -> Tensor:
        h = self.emb(ids).new_zeros(len(ids), 24)
        for k in range(ids.shape[1]):
            # A short recurrence, which stands still at padding.
            new = torch.tanh(self.rnn(h) + self.emb(ids[:, k]))
            h = torch.where(attention_mask[:, k, None] > 0, new, h)
        return h


class UNetish(nn.Module):
    def __init__(self, c: int = 4):
        super().__init__()
        self.inp, self.down = nn.Conv2d(c, 24, 3, padding=1), nn.Conv2d(24, 24, 3, padding=1)
        self.emb, self.out = nn.Linear(24 + 2, 24), nn.Conv2d(24, c, 3, padding=1)
        self.uncond = nn.Parameter(torch.randn(24))

    def forward(self, x: Tensor, sigma: Tensor, text: Tensor | None) -> Tensor:
        text = self.uncond.expand(len(x), -1) if text is None else text
        clock = torch.stack((sigma.mul(3).sin(), sigma.mul(3).cos()), -1).expand(len(x), 2).to(x.dtype)
        bias = self.emb(torch.cat((text, clock), 1)).unflatten(1, (-1, 1, 1))
        y = nn.functional.silu(self.inp(x) + bias)
        return self.out(y + nn.functional.silu(self.down(y))) * 2


class VAE(nn.Module):
    def __init__(self, c: int = 4):
        super().__init__()
        self.up = nn.Conv2d(c, 3 * 64, 1)
        with torch.no_grad():
            self.up.weight.mul_(0.3)

    def unscale(self, x: Tensor) -> Tensor:
        return 2 * x

    def forward(self, latent: Tensor) -> Tensor:
        return nn.functional.pixel_shuffle(self.up(latent), 8).clamp(-1, 1)


class IntervalModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.tower, self.unet, self.vae = TextTower(), UNetish(), VAE()

    def prepare(self, prompts: list[str], length: int = 80) -> dict[str, Tensor]:
        rows = [[256, *p.encode()][:length] for p in prompts]
        ids = torch.tensor([r + [0] * (length - len(r)) for r in rows])
        mask = torch.tensor([[1.0] * len(r) + [0.0] * (length - len(r)) for r in rows])
        device = self.vae.up.weight.device
        return {"ids": ids.to(device), "attention_mask": mask.to(device)}

    def velocity(self, x: Tensor, sigma: Tensor, text: Tensor, w: float) -> Tensor:
        c = self.unet(x.to(text.dtype), sigma, text).float()
        if w == 0 or not INTERVAL[0] <= 1 - float(sigma) <= INTERVAL[1]:
            return c
        u = self.unet(x.to(text.dtype), sigma, None).float()
        return (1 + w) * c - w * u

    def diffuse(self, x: Tensor, text: Tensor, steps: int, w: float) -> Iterator[Tensor]:
        sigmas = torch.linspace(1, 0, steps + 1, device=x.device)
        yield x
        for k in range(steps):
            x = x + (sigmas[k] - sigmas[k + 1]) * self.velocity(x, sigmas[k], text, w)
            yield x

    @torch.no_grad()
    def generate(
        self, tokens: dict[str, Tensor], height: int, width: int, steps: int = 10, w: float = 3.0, *, noise_source
    ):
        if height % 8 or width % 8 or steps < 1:
            raise ValueError(f"need sides that are multiples of 8 and a step: {height}x{width}, {steps} steps")
        text = self.tower(tokens["ids"], tokens["attention_mask"])
        x = torch.randn(len(text), 4, height // 8, width // 8, generator=noise_source, device=text.device)
        *_, x = self.diffuse(x, text, steps, w)
        return self.vae(self.vae.unscale(x).to(text.dtype)).float()


def get_model(variant: str = "s", *, on="cpu", precision=torch.float32) -> IntervalModel:
    seeds = {"s": 9}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seeds[variant])
        return IntervalModel().to(on, precision)
