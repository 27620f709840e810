"""Latents in lists, a time that runs the other way, and a guided prediction whose norm is that of the conditional one.

Conventions: the loop walks sigma from 1 to 0 (uniform, Euler, left edge) while the network is told t = 1 - sigma and
predicts noise - data, which the loop negates. The network takes a list of `[C, h, w]` latents and a list of texts,
and returns such a list. One doubled call, conditional first: `u + s (c - u)`, rescaled to the norm of c over each
row; off for s <= 1. Uneven texts, no padding. Decoder input is `state / 0.6 - 0.1`. Images [-1, 1], sides multiples
of 8.
"""

import torch
from torch import Tensor, nn


class TextModel(nn.Module):
    def __init__(self, dim: int = 32):
        super().__init__()
        self.tok, self.ff = nn.Embedding(257, dim), nn.Linear(dim, dim)

    def forward(self, prompts: list[str]) -> list[Tensor]:
        """One `[L, dim]` a prompt, each of its own length."""
        rows = [torch.tensor([256, *p.encode()], device=self.tok.weight.device) for p in prompts]
        return [self.tok(r) + torch.tanh(self.ff(self.tok(r).cumsum(0) / 3)) for r in rows]


class ListTransformer(nn.Module):
    def __init__(self, c: int = 4, dim: int = 32):
        super().__init__()
        self.x_embed, self.unembed = nn.Conv2d(c, dim, 3, padding=1), nn.Conv2d(dim, c, 3, padding=1)
        self.t_embed, self.q = nn.Linear(2, dim), nn.Linear(dim, dim)

    def forward(self, x: list[Tensor], t: Tensor, cap_feats: list[Tensor]) -> list[Tensor]:
        clock = self.t_embed(torch.stack(((3 * t).sin(), (3 * t).cos()), 1).to(x[0].dtype))
        hidden = self.x_embed(torch.stack(x)) + clock[:, :, None, None]
        return [self.unembed(self.attend(row, text)[None])[0] * 2 for row, text in zip(hidden, cap_feats, strict=True)]

    def attend(self, row: Tensor, text: Tensor) -> Tensor:
        pixels = row.flatten(1).T
        weights = (self.q(pixels) @ text.T / text.shape[1] ** 0.5).softmax(-1)
        return torch.tanh(pixels + weights @ text).T.unflatten(1, row.shape[1:])


class Decoder(nn.Module):
    def __init__(self, c: int = 4):
        super().__init__()
        self.net = nn.ConvTranspose2d(c, 3, 8, stride=8)

    def forward(self, z: Tensor) -> Tensor:
        return self.net(z).tanh()


class ListPipeline:
    scaling, shift = 0.6, -0.1

    def __init__(self, text_model: TextModel, transformer: ListTransformer, decoder: Decoder):
        self.text_model, self.transformer, self.decoder = text_model, transformer, decoder

    @classmethod
    def from_seed(cls, seed: int, dtype=torch.float32, device="cpu") -> "ListPipeline":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cls(*(part.to(device, dtype).eval() for part in (TextModel(), ListTransformer(), Decoder())))

    def predict(self, latents: Tensor, sigma: float, texts: list[Tensor], scale: float) -> Tensor:
        """The guided dx/dt, `[B, C, h, w]` float32."""
        n = len(latents)
        rows = [*latents.to(texts[0].dtype).unbind(0)] * (len(texts) // n)
        told = torch.full((len(rows),), 1 - sigma, device=latents.device)
        out = -torch.stack(self.transformer(rows, told, texts)).float()
        if len(rows) == n:
            return out
        c, u = out[:n], out[n:]
        mixed = u + scale * (c - u)
        norms = [v.flatten(1).norm(dim=1)[:, None, None, None] for v in (c, mixed)]
        return mixed * (norms[0] / norms[1])

    @torch.inference_mode()
    def __call__(self, prompts: list[str], height: int, width: int, steps: int, scale: float, generator) -> Tensor:
        if height % 8 or width % 8:
            raise ValueError(f"height {height} and width {width} must be multiples of 8")
        if steps < 1:
            raise ValueError(f"steps must be at least 1, not {steps}")
        texts = self.text_model(prompts)
        if scale > 1:
            texts = texts + self.text_model([""] * len(prompts))
        device, dtype = self.decoder.net.weight.device, self.decoder.net.weight.dtype
        latents = torch.randn(len(prompts), 4, height // 8, width // 8, generator=generator, device=device)
        for k in range(steps):
            sigma, after = 1 - k / steps, 1 - (k + 1) / steps
            latents = latents + (sigma - after) * self.predict(latents, sigma, texts, scale)
        return self.decoder((latents / self.scaling + self.shift).to(dtype)).float()
