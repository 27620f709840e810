"""A Flux-like model with distilled guidance, written as scripts of the original repository are: functions and a bag.

Conventions: state is packed tokens `[B, (h/2)(w/2), C*2*2]`, channels before the two patch axes; the network is told
sigma (a number a row), the guidance scale as an embedding (one branch, no unconditional one) and predicts noise -
data. Sigmas: `linspace(1, 0, K + 1)`, log shift linear in the number of tokens between (16, 0.5) and (256, 1.15).
Euler, left edge. `latent / 0.36 + 0.11` before `ae.decode`. Images [-1, 1]; sides must be multiples of 16.
"""

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn


class T5ish(nn.Module):
    def __init__(self, dim: int = 48):
        super().__init__()
        self.shared, self.conv = nn.Embedding(258, dim), nn.Linear(dim, dim)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        hidden = self.shared(input_ids)
        return (hidden + torch.tanh(self.conv(hidden))) * attention_mask.unsqueeze(-1).to(hidden.dtype)


class Flow(nn.Module):
    def __init__(self, in_channels: int = 16, dim: int = 48):
        super().__init__()
        self.img_in, self.final = nn.Linear(in_channels, dim), nn.Linear(dim, in_channels)
        self.pe, self.vec, self.q = nn.Linear(4, dim), nn.Linear(8, dim), nn.Linear(dim, dim)

    def forward(self, img: Tensor, img_ids: Tensor, txt: Tensor, timesteps: Tensor, guidance: Tensor) -> Tensor:
        angles = torch.stack((timesteps, 2 * timesteps, guidance / 4, guidance / 9), 1).float()
        vec = self.vec(torch.cat((angles.sin(), angles.cos()), 1).to(img.dtype))
        x = self.img_in(img) + self.pe(torch.cat((img_ids.sin(), img_ids.cos()), -1).to(img.dtype)) + vec[:, None]
        q = self.q(x)
        x = x + torch.softmax(q @ txt.mT / q.shape[-1] ** 0.5, -1) @ txt
        x = x + torch.softmax(q @ x.mT / q.shape[-1] ** 0.5, -1) @ x
        return 1.5 * self.final(torch.nn.functional.gelu(x))


class AutoEncoder(nn.Module):
    scale_factor, shift_factor = 0.36, 0.11

    def __init__(self, z: int = 4):
        super().__init__()
        self.encoder, self.decoder = nn.Conv2d(3, z, 8, 8), nn.Linear(z, 192)

    def encode(self, image: Tensor) -> Tensor:
        return self.encoder(image)

    def decode(self, z: Tensor) -> Tensor:
        patches = torch.sin(self.decoder(z.movedim(1, -1))).movedim(-1, 1)
        return nn.functional.pixel_shuffle(patches, 8)


@dataclass
class Bag:
    t5: T5ish
    flow: Flow
    ae: AutoEncoder


def tokens(prompts: list[str], device) -> tuple[Tensor, Tensor]:
    rows = [[257, *text.encode()[:63]] for text in prompts]
    ids = torch.tensor([row + [256] * (64 - len(row)) for row in rows], device=device)
    return ids, (ids != 256).to(torch.int64)


def get_schedule(num_steps: int, image_tokens: int) -> list[float]:
    mu = 0.5 + (1.15 - 0.5) / (256 - 16) * (image_tokens - 16)
    linear = [1 - k / num_steps for k in range(num_steps)]
    return [math.exp(mu) / (math.exp(mu) + (1 / s - 1)) for s in linear] + [0.0]


def pack(x: Tensor) -> Tensor:
    b, c, h, w = x.shape
    return x.reshape(b, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(b, h * w // 4, c * 4)


def unpack(x: Tensor, height: int, width: int) -> Tensor:
    b, _, d = x.shape
    x = x.reshape(b, height // 16, width // 16, d // 4, 2, 2).permute(0, 3, 1, 4, 2, 5)
    return x.reshape(b, d // 4, height // 8, width // 8)


@torch.inference_mode()
def generate(bag: Bag, prompts: list[str], width: int, height: int, num_steps: int, guidance: float, rng) -> Tensor:
    if width % 16 or height % 16:
        raise ValueError(f"width and height must be multiples of 16: {width}x{height}")
    if num_steps < 1:
        raise ValueError(f"num_steps: {num_steps}")
    weight = bag.flow.final.weight
    txt = bag.t5(*tokens(prompts, weight.device))
    noise = torch.randn(len(prompts), 4, height // 8, width // 8, generator=rng, device=weight.device)
    img = pack(noise)
    ys, xs = torch.meshgrid(torch.arange(height // 16), torch.arange(width // 16), indexing="ij")
    ids = torch.stack((ys, xs), -1).reshape(1, -1, 2).to(img).expand(len(img), -1, -1)
    strength = torch.full((len(img),), float(guidance), device=img.device)
    schedule = get_schedule(num_steps, img.shape[1])
    for now, then in itertools.pairwise(schedule):
        told = torch.full((len(img),), now, device=img.device)
        pred = bag.flow(img=img.to(weight.dtype), img_ids=ids, txt=txt, timesteps=told, guidance=strength)
        img = img + (then - now) * pred.float()
    z = unpack(img, height, width) / bag.ae.scale_factor + bag.ae.shift_factor
    return bag.ae.decode(z.to(weight.dtype)).float()


def load(name: str = "mini", device="cpu", dtype=torch.float32) -> Bag:
    if name != "mini":
        raise KeyError(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return Bag(*(net.to(device, dtype).requires_grad_(False) for net in (T5ish(), Flow(), AutoEncoder())))
