"""A noise-prediction model on a hand-made list of sigmas; the network returns a dict.

Conventions: sigma from 1 (noise) to 0 (data), x = (1 - sigma) data + sigma noise; the network is told sigma and
predicts the noise, so dx/dsigma = (noise - x) / (1 - sigma), which is singular at sigma = 1: every Euler step asks in
its middle. Edges `sigma_k = 1 - (k/K)^1.5`. Unconditional call first, then the conditional one; `u + s (c - u)`, off
at s = 1. The unconditional text is "". `decode_first_stage` divides by 0.13 itself. Images [-1, 1], sides multiples
of 8.
"""

import itertools
from typing import TypedDict

import torch
from torch import Tensor, nn


class Prediction(TypedDict):
    features: list[float]
    eps: Tensor


class Embedder(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb, self.att = nn.EmbeddingBag(300, 20, mode="sum"), nn.Linear(20, 20)

    def forward(self, batch: list[str]) -> Tensor:
        """A list of prompts to `[B, 20]`."""
        pairs = [
            [256 + len(p) % 40] + [(a + 3 * b) % 256 for a, b in zip(p.encode(), p.encode()[1:], strict=False)]
            for p in batch
        ]
        rows = [self.emb(torch.tensor([row], device=self.emb.weight.device)) for row in pairs]
        return torch.tanh(self.att(torch.cat(rows) / 2))


class EpsNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.head, self.film, self.tail = nn.Conv2d(4, 28, 3, padding=1), nn.Linear(22, 28), nn.Conv2d(28, 4, 1)

    def forward(self, noisy: Tensor, sigma: Tensor, context: Tensor) -> Prediction:
        s = sigma.reshape(-1, 1).to(context)
        film = self.film(torch.cat((context, (2 * s).cos(), (2 * s).sin()), 1))[:, :, None, None]
        # At sigma = 1 the noise is the state itself: the network adds what is to be known besides.
        add = self.tail(torch.relu(self.head(noisy) + film)) * (1 - s)[:, :, None, None].to(noisy)
        return {"features": [0.0], "eps": noisy + 2 * add}


class NoiseModel(nn.Module):
    scale_factor = 0.13

    def __init__(self):
        super().__init__()
        self.cond_stage, self.eps_model = Embedder(), EpsNet()
        self.first_stage = nn.Sequential(nn.ConvTranspose2d(4, 3, 8, 8), nn.Hardtanh())
        with torch.no_grad():  # latents come in ten times as wide as the state
            self.first_stage[0].weight.mul_(0.1)

    def decode_first_stage(self, z: Tensor) -> Tensor:
        return self.first_stage(z / self.scale_factor)


def sigma_edges(k: int) -> list[float]:
    return [1 - (i / k) ** 1.5 for i in range(k + 1)]


@torch.no_grad()
def run_sampler(model: NoiseModel, prompts: list[str], H: int, W: int, K: int, scale: float, generator) -> dict:
    """Returns `{"samples": images, "latents": z}`."""
    if H % 8 or W % 8:
        raise ValueError(f"H and W must be divisible by 8, not {H}, {W}")
    if K < 1:
        raise ValueError(f"K must be at least 1, not {K}")
    c = model.cond_stage(prompts)
    uc = model.cond_stage([""] * len(prompts))
    z = torch.randn((len(prompts), 4, H // 8, W // 8), generator=generator, device=c.device)
    edges = sigma_edges(K)
    for s0, s1 in itertools.pairwise(edges):
        middle = (s0 + s1) / 2
        sigma = torch.full((len(z),), middle, device=z.device)
        inp = z.to(c.dtype)
        if scale == 1:
            eps = model.eps_model(inp, sigma, c)["eps"].float()
        else:
            e_u = model.eps_model(inp, sigma, uc)["eps"].float()
            e_c = model.eps_model(inp, sigma, c)["eps"].float()
            eps = e_u + scale * (e_c - e_u)
        z = z + (s1 - s0) * (eps - z) / (1 - middle)
    return {"samples": model.decode_first_stage(z.to(c.dtype)).float(), "latents": z}


def instantiate(config: dict | None = None) -> NoiseModel:
    config = {"seed": 6, "dtype": torch.float32, "device": "cpu"} | (config or {})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config["seed"])
        return NoiseModel().to(config["device"], config["dtype"])
