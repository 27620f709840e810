"""A plain-token diffusion transformer: the state is `[B, h*w, C]` from the first noise to the last step.

Conventions: patch 1, row-major tokens of an h x w latent with 8 channels; the network is told sigma = 1 - t and
predicts noise - data; uniform sigmas 1 to 0, Euler, left edge. One doubled call, conditional first, `u + s (c - u)`
and then guidance rescale with phi = 0.7 over a whole row; guidance is off for s <= 1. `fold` makes the decoder's
latent, `state / 0.9 + 0.05`. Images [-1, 1]. Sides are multiples of 8.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

PHI, CHANNELS, NULL_ID = 0.7, 8, 259


class Result(NamedTuple):
    pictures: Tensor
    tokens: Tensor


class Prompts(nn.Module):
    def __init__(self, dim: int):
        super().__init__()
        self.embed, self.mlp = nn.Embedding(260, dim), nn.Linear(dim, dim)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        x = self.embed(ids)
        x = x + torch.tanh(self.mlp(x)).cumsum(1) / 4
        return x.masked_fill(~mask[..., None], 0.0)


class DiT(nn.Module):
    def __init__(self, dim: int = 40):
        super().__init__()
        self.enter, self.leave, self.time = nn.Linear(CHANNELS, dim), nn.Linear(dim, CHANNELS), nn.Linear(2, dim)
        self.place, self.qk, self.kv = nn.Linear(4, dim), nn.Linear(dim, dim), nn.Linear(dim, dim)

    def forward(self, tokens: Tensor, sigma: Tensor, context: Tensor, mask: Tensor, shape: tuple[int, int]) -> Tensor:
        y, x = torch.meshgrid(*(torch.arange(n, device=tokens.device) for n in shape), indexing="ij")
        place = torch.stack((y.sin(), y.cos(), x.sin(), x.cos()), -1).reshape(1, -1, 4).to(tokens.dtype)
        clock = torch.stack(((3 * sigma).sin(), (3 * sigma).cos()), 1).to(tokens.dtype)
        z = self.enter(tokens) + self.place(place) + self.time(clock)[:, None]
        allowed = mask[:, None].expand(-1, z.shape[1], -1)
        z = z + nn.functional.scaled_dot_product_attention(self.qk(z), context, self.kv(context), attn_mask=allowed)
        z = z + nn.functional.scaled_dot_product_attention(z, z, self.qk(z))
        return self.leave(torch.tanh(z)) * 2


class TokenFlow:
    """Not a module: four of them, and the methods that use them."""

    def __init__(self, device: str = "cpu", dtype: torch.dtype = torch.float32, seed: int = 8):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            nets = Prompts(40), DiT(), nn.Linear(CHANNELS, 192), nn.Linear(192, CHANNELS)
        self.prompts, self.dit, self.painter, self.reader = (net.to(device, dtype) for net in nets)

    def tokenize(self, texts: list[str], spare: int = 0) -> tuple[Tensor, Tensor]:
        rows = [[258, *t.encode()] for t in texts]
        length = max(map(len, rows)) + spare
        ids = torch.tensor([r + [257] * (length - len(r)) for r in rows])
        return ids, torch.tensor([[True] * len(r) + [False] * (length - len(r)) for r in rows])

    def empty(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        mask = torch.zeros_like(ids, dtype=torch.bool)
        mask[:, 0] = True
        return torch.full_like(ids, NULL_ID), mask

    def fold(self, tokens: Tensor, height: int, width: int) -> Tensor:
        latent = tokens.transpose(1, 2).unflatten(2, (height // 8, width // 8))
        return latent / 0.9 + 0.05

    def unfold(self, latent: Tensor) -> Tensor:
        return (latent - 0.05).mul(0.9).flatten(2).transpose(1, 2)

    def paint(self, latent: Tensor) -> Tensor:
        colours = self.painter(latent.movedim(1, -1).to(self.painter.weight)).movedim(-1, 1)
        return nn.functional.pixel_shuffle(colours, 8).float().sin()

    def read(self, pictures: Tensor) -> Tensor:
        return self.reader(nn.functional.pixel_unshuffle(pictures, 8).movedim(1, -1)).movedim(-1, 1)

    def guide(self, c: Tensor, u: Tensor, s: float) -> Tensor:
        mixed = u + s * (c - u)
        rescaled = mixed * (c.std(dim=(1, 2), keepdim=True) / mixed.std(dim=(1, 2), keepdim=True))
        return PHI * rescaled + (1 - PHI) * mixed

    @torch.no_grad()
    def imagine(self, ids, mask, resolution: tuple[int, int], *, iterations=20, strength=5.0, random) -> Result:
        height, width = resolution
        if height % 8 or width % 8:
            raise ValueError(f"resolution {resolution} is not divisible by 8")
        if iterations < 1:
            raise ValueError(f"iterations must be 1 or more, not {iterations}")
        grid, context, guided = (height // 8, width // 8), self.prompts(ids, mask), strength > 1
        if guided:
            empty_ids, empty_mask = self.empty(ids)
            context, mask = torch.cat((context, self.prompts(empty_ids, empty_mask))), torch.cat((mask, empty_mask))
        state = torch.randn(len(ids), grid[0] * grid[1], CHANNELS, generator=random, device=context.device)
        sigmas = torch.linspace(1, 0, iterations + 1)
        for now, after in zip(sigmas[:-1].tolist(), sigmas[1:].tolist(), strict=True):
            told = torch.full((len(context),), now, device=state.device)
            given = torch.cat((state, state)) if guided else state
            out = self.dit(given.to(context.dtype), told, context, mask, grid).float()
            out = self.guide(*out.chunk(2), strength) if guided else out
            state = state + (after - now) * out
        return Result(self.paint(self.fold(state, height, width)), state)

    def study(self, ids: Tensor, mask: Tensor, pictures: Tensor, random: torch.Generator) -> Tensor:
        latent = self.read(pictures)
        data = self.unfold(latent)
        noise = torch.randn(data.shape, generator=random, device=data.device)
        sigma = torch.rand(len(data), generator=random, device=data.device)
        drop = torch.rand(len(data), 1, generator=random, device=data.device) < 0.1
        empty_ids, empty_mask = self.empty(ids)
        ids, mask = torch.where(drop, empty_ids, ids), torch.where(drop, empty_mask, mask)
        noisy = data + sigma[:, None, None] * (noise - data)
        out = self.dit(noisy, sigma, self.prompts(ids, mask), mask, tuple(latent.shape[2:]))
        return ((out - noise + data) ** 2).mean()
