"""A functional sampler: `sample_ode(velocity_fn, x, times)` integrates any callable; guidance is a `functools.partial`.

Conventions: t from 0 (noise) to 1 (data), uniform edges, Heun (trapezoid) in every step, also the last one; the
network is told t and predicts dx/dt. Two calls a stage, conditional first, `u + s (c - u)`; at s = 1 only the
conditional one. The unconditional text is a learned embedding. The latent is the state itself (no scale, no shift).
Images in [-1, 1].
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Bundle:
    """What one checkpoint holds."""

    prompt_net: nn.Module
    field: nn.Module
    pixels: nn.Module
    latents: nn.Module


class PromptNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.letters, self.gru = nn.Embedding(257, 16, padding_idx=256), nn.Linear(16, 16)
        self.nothing = nn.Parameter(torch.randn(16))

    def forward(self, ids: Tensor) -> Tensor:
        """`[B, L]` (256 pads) to `[B, 16]`."""
        place = torch.arange(ids.shape[1], device=ids.device)
        weight = (ids != 256) * (1 + 0.5 * torch.sin(0.7 * place))
        summed = (self.letters(ids) * weight[..., None].to(self.letters.weight)).sum(1)
        return torch.tanh(self.gru(summed / 3))


class Field(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(6, 24, 3, padding=1), nn.Linear(18, 24), nn.Conv2d(24, 6, 3, padding=1)

    def forward(self, z: Tensor, t: Tensor, text: Tensor) -> Tensor:
        t = t.to(z.dtype).expand(len(z))[:, None]
        bias = self.b(torch.cat((text, (3 * t).sin(), (3 * t).cos()), 1))
        return self.c(torch.tanh(self.a(z) + bias[..., None, None])) * 2


def to_pixels(bundle: Bundle, latent: Tensor) -> Tensor:
    return bundle.pixels(latent).clamp(-1, 1)


def to_latent(bundle: Bundle, images: Tensor) -> Tensor:
    return bundle.latents(images)


def letters(prompts: list[str], length: int = 64) -> Tensor:
    padded = [list(p.encode()[:length]) for p in prompts]
    return torch.tensor([row + [256] * (length - len(row)) for row in padded])


def guided(field, cond: Tensor, uncond: Tensor, scale: float, z: Tensor, t: Tensor) -> Tensor:
    c = field(z, t, cond)
    if scale == 1:
        return c
    u = field(z, t, uncond)
    return u + scale * (c - u)


def sample_ode(velocity_fn: Callable[[Tensor, Tensor], Tensor], z: Tensor, times: Tensor) -> Tensor:
    """Heun's method from times[0] to times[-1]."""
    for t0, t1 in itertools.pairwise(times):
        k0 = velocity_fn(z, t0)
        k1 = velocity_fn(z + (t1 - t0) * k0, t1)
        z = z + (t1 - t0) * (k0 + k1) / 2
    return z


@torch.no_grad()
def txt2img(bundle: Bundle, prompts, *, shape=(64, 64), n_steps=10, cfg=3.0, seed_gen: torch.Generator) -> Tensor:
    height, width = shape
    if height % 8 or width % 8:
        raise ValueError(f"shape must be divisible by 8: {shape}")
    if n_steps < 1:
        raise ValueError("n_steps must be positive")
    device = bundle.field.a.weight.device
    cond = bundle.prompt_net(letters(prompts).to(device))
    uncond = bundle.prompt_net.nothing.expand_as(cond)
    z = torch.randn(len(prompts), 6, height // 8, width // 8, generator=seed_gen, device=device)
    times = torch.linspace(0, 1, n_steps + 1, device=device)
    return to_pixels(bundle, sample_ode(partial(guided, bundle.field, cond, uncond, cfg), z, times))


def flow_loss(bundle: Bundle, prompts: list[str], images: Tensor, gen: torch.Generator) -> Tensor:
    """Uniform times; one prompt in ten becomes the learned nothing."""
    data = to_latent(bundle, images)
    noise = torch.randn(data.shape, generator=gen, device=data.device)
    t = torch.rand(len(data), generator=gen, device=data.device)
    gone = torch.rand(len(data), generator=gen, device=data.device) < 0.1
    text = torch.where(gone[:, None], bundle.prompt_net.nothing, bundle.prompt_net(letters(prompts).to(data.device)))
    mix = torch.lerp(noise, data, t[:, None, None, None])
    return nn.functional.mse_loss(bundle.field(mix, t, text), data - noise)


def build_bundle(rng_seed: int = 4, where="cpu") -> Bundle:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(rng_seed)
        pixels = nn.Sequential(nn.Conv2d(6, 192, 1), nn.PixelShuffle(8), nn.Tanh())
        nets = PromptNet(), Field(), pixels, nn.Sequential(nn.PixelUnshuffle(8), nn.Conv2d(192, 6, 1))
    return Bundle(*(net.to(where) for net in nets))
