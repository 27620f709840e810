"""A model that predicts the data end ("x1"), sampled by the explicit midpoint method.

Conventions: t from 0 (noise) to 1 (data), uniform; x_t = (1 - t) x0 + t x1; the network is told t and predicts x1, so
that dx/dt = (x1 - x) / (1 - t); stages at t and t + dt/2, never at t = 1. One doubled call, conditional half first;
guidance of the predictions `u + g (c - u)`. Decoder input is `state / 0.8 - 0.2`, done by `Painter.finish`. Images
[-1, 1].
"""

import torch
from torch import Tensor, nn


def weights(*shape: int, gen: torch.Generator) -> nn.Parameter:
    return nn.Parameter(torch.randn(*shape, generator=gen) / max(1, shape[-1]) ** 0.5)


class CharText(nn.Module):
    def __init__(self, gen: torch.Generator):
        super().__init__()
        self.table = weights(128, 24, gen=gen)

    def forward(self, codes: Tensor, keep: Tensor) -> Tensor:
        """Codes `[B, L]` and their mask to `[B, 24]`; letters count by their place."""
        place = torch.cos(torch.arange(codes.shape[1], device=codes.device) * 0.37 + 0.2)
        return torch.einsum("bld,bl->bd", self.table[codes] * 5, place.to(self.table) * keep.to(self.table)).tanh()


class DataNet(nn.Module):
    """`(z, t, text, null)` to the expected data latent."""

    def __init__(self, gen: torch.Generator, ch: int = 4, dim: int = 24):
        super().__init__()
        self.w_in, self.w_mix = weights(dim, ch * 9, gen=gen), weights(dim, dim, gen=gen)
        self.w_out, self.w_t, self.no_text = weights(ch, dim, gen=gen), weights(dim, 3, gen=gen), weights(dim, gen=gen)

    def forward(self, z: Tensor, t: Tensor, text: Tensor, null: Tensor) -> Tensor:
        text = torch.where(null[:, None], self.no_text.expand_as(text), text)
        clock = torch.stack((t, (2 * t).sin(), (2 * t).cos()), 1).to(z.dtype) @ self.w_t.T
        y = nn.functional.conv2d(z, self.w_in.unflatten(1, (-1, 3, 3)), padding=1)
        y = torch.sin(y + (clock + text @ self.w_mix)[:, :, None, None])
        return torch.einsum("oc,bchw->bohw", self.w_out, y)


class Painter(nn.Module):
    def __init__(self, gen: torch.Generator):
        super().__init__()
        self.text, self.net = CharText(gen), DataNet(gen)
        self.w_decode, self.w_encode = weights(192, 4, gen=gen), weights(4, 192, gen=gen)

    @staticmethod
    def codes(prompts: list[str], extra: int = 0) -> tuple[Tensor, Tensor]:
        length = max(1, *map(len, prompts)) + extra
        rows = [[min(ord(c), 127) for c in p] + [0] * (length - len(p)) for p in prompts]
        keep = [[True] * len(p) + [False] * (length - len(p)) for p in prompts]
        return torch.tensor(rows), torch.tensor(keep)

    def finish(self, state: Tensor) -> Tensor:
        return state / 0.8 - 0.2

    def render(self, latent: Tensor) -> Tensor:
        wide = torch.einsum("oc,bchw->bohw", self.w_decode, latent.to(self.w_decode))
        return nn.functional.pixel_shuffle(wide, 8).tanh().float()

    def compress(self, images: Tensor) -> Tensor:
        """The latent of the decoder, `[B, 4, H/8, W/8]`."""
        return torch.einsum("oc,bchw->bohw", self.w_encode, nn.functional.pixel_unshuffle(images, 8))

    def derivative(self, z: Tensor, t: float, text: Tensor, g: float) -> Tensor:
        n = len(z)
        null = torch.tensor([False] * n + [True] * n, device=z.device)
        told = torch.full((2 * n,), t, device=z.device)
        data = self.net(torch.cat((z, z)).to(text.dtype), told, torch.cat((text, text)), null).float()
        return (data[n:] + g * (data[:n] - data[n:]) - z) / (1 - t)

    @torch.no_grad()
    def paint(self, codes: Tensor, keep: Tensor, size: tuple[int, int], n: int, g: float, rng: torch.Generator):
        if size[0] % 8 or size[1] % 8 or n < 1:
            raise ValueError(f"cannot paint {size} in {n} steps: sides are multiples of 8 and n is positive")
        text = self.text(codes, keep)
        z = torch.randn(len(codes), 4, size[0] // 8, size[1] // 8, generator=rng, device=text.device)
        for k in range(n):
            half = z + 0.5 / n * self.derivative(z, k / n, text, g)
            z = z + 1 / n * self.derivative(half, (k + 0.5) / n, text, g)
        return self.render(self.finish(z))

    def objective(self, codes: Tensor, keep: Tensor, images: Tensor, rng: torch.Generator) -> Tensor:
        x1 = (self.compress(images) + 0.2) * 0.8
        x0 = torch.randn(x1.shape, generator=rng, device=x1.device)
        t = torch.rand(len(x1), generator=rng, device=x1.device)
        null = torch.rand(len(x1), generator=rng, device=x1.device) < 0.1
        w = t.view(-1, 1, 1, 1)
        return (self.net((1 - w) * x0 + w * x1, t, self.text(codes, keep), null) - x1).pow(2).mean()


def new_painter(device="cpu", dtype=torch.float32) -> Painter:
    return Painter(torch.Generator().manual_seed(5)).to(device, dtype)
