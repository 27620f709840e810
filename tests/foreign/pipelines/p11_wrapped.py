"""Parts in a dict, each behind a wrapper; generation is a function of the module, its result a tuple.

Conventions: t from 0 (noise) to 1 (data); the network is told t (one number for all rows) and predicts dx/dt; shifted
grid, sigma' = 2 sigma / (1 + sigma) of uniform edges; Euler at the left edge. One doubled call, unconditional half
first, `u + s (c - u)`, always both halves. The decoder returns [-1, 1], the images of the result are in [0, 1];
decoder input is `state / 1.2`. Sides are multiples of 8.
"""

from typing import Any

import torch
from torch import Tensor, nn

Parts = dict[str, Any]


class Compiled(nn.Module):
    """What remains of an optimising wrapper: forwards everything."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self._orig_mod = module

    def forward(self, *args, **kwargs):
        return self._orig_mod(*args, **kwargs)


class Cast:
    """A callable, not a module: runs a network in its own dtype and gives float32 back."""

    def __init__(self, net: nn.Module):
        self.net = net

    def __call__(self, x: Tensor, *rest: Any) -> Tensor:
        return self.net(x.to(next(self.net.parameters()).dtype), *rest).float()


class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.bag, self.mix = nn.Embedding(512, 24), nn.Linear(24, 24)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        steps = torch.arange(ids.shape[1], device=ids.device, dtype=self.bag.weight.dtype)
        weight = mask.to(steps) * (1 + (steps * 0.9).sin() / 2)
        return self.mix(torch.einsum("bl,bld->bd", weight, self.bag(ids))).tanh()


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.enter, self.leave = nn.Conv2d(5, 30, 3, padding=1), nn.Conv2d(30, 5, 3, padding=1)
        self.cond = nn.Linear(26, 30)

    def forward(self, x: Tensor, t: Tensor, words: Tensor) -> Tensor:
        clock = torch.stack(((3 * t).sin(), (3 * t).cos())).to(x.dtype).expand(len(x), 2)
        bias = self.cond(torch.cat((words, clock), 1))
        return 2 * self.leave(torch.sin(self.enter(x) + bias[:, :, None, None]))


def word_ids(prompts: list[str], length: int = 16) -> tuple[Tensor, Tensor]:
    """A word is the sum of its letters; id 0 starts every prompt and pads it."""
    rows = [[0, *[1 + sum(word.encode()) % 511 for word in p.split()][: length - 1]] for p in prompts]
    ids = torch.tensor([r + [0] * (length - len(r)) for r in rows])
    return ids, torch.tensor([[True] * len(r) + [False] * (length - len(r)) for r in rows])


def assemble(seed: int = 11, *, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Parts:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        words, net, paint = Words(), Net(), nn.Sequential(nn.ConvTranspose2d(5, 3, 8, stride=8), nn.Tanh())
    for part in (words, net, paint):
        part.to(device, dtype)
    return {"words": words, "velocity": Cast(Compiled(net)), "paint": Cast(Compiled(paint)), "device": device}


def edges(steps: int, shift: float = 2.0) -> Tensor:
    sigma = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
    return (1 - shift * sigma / (1 + (shift - 1) * sigma)).float()


@torch.no_grad()
def make_images(
    parts: Parts, prompts: list[str], size: tuple[int, int], steps: int, guidance: float, generator: torch.Generator
) -> tuple[Tensor, dict[str, Tensor]]:
    """Images float32 `[B, 3, H, W]` in [0, 1] and extras."""
    height, width = size
    if height % 8 or width % 8:
        raise ValueError(f"size {size}: both sides must be multiples of 8")
    if steps < 1:
        raise ValueError(f"steps {steps}: at least one is needed")
    ids, mask = (x.to(parts["device"]) for x in word_ids([""] * len(prompts) + list(prompts)))
    words = parts["words"](ids, mask)
    x = torch.randn(len(prompts), 5, height // 8, width // 8, generator=generator, device=parts["device"])
    times = edges(steps).to(x.device)
    for k in range(steps):
        u, c = parts["velocity"](torch.cat((x, x)), times[k], words).chunk(2)
        x = x + (times[k + 1] - times[k]) * (u + guidance * (c - u))
    images = parts["paint"](x / 1.2)
    return (images + 1) / 2, {"latents": x, "times": times}
