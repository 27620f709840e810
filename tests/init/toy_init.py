"""A sampler whose parameters are called like nothing else, for the tests of `fmcheck init`."""

import itertools

import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.full((3, 1, 1), 0.7))

    def forward(self, picture, moment, empty, mood):
        flag = empty.to(picture.dtype)[:, None, None, None]
        return torch.sin(2 * self.gain * picture + mood * (1 - flag)) + moment[:, None, None, None] * (1 + flag)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = Net()

    def decode(self, latent):
        return torch.tanh(nn.functional.interpolate(latent, scale_factor=8))

    @torch.no_grad()
    def generate(self, prompts, steps, cfg, generator, height, width):
        if height % 8 or width % 8:
            raise ValueError(f"sides must be multiples of 8, not {height}x{width}")
        rows = len(prompts)
        x = torch.randn(rows, 3, height // 8, width // 8, generator=generator)
        mood = torch.tensor([[sum((i + 1) * ord(c) for i, c in enumerate(p)) % 97 / 30 for p in prompts]]).reshape(
            -1, 1, 1, 1
        )
        for now, after in itertools.pairwise(torch.linspace(1, 0, steps + 1).tolist()):
            told = torch.full((2 * rows,), now)
            out = self.net(torch.cat([x, x]), told, torch.arange(2 * rows) < rows, torch.cat([mood, mood]))
            u, c = out.chunk(2)
            x = x + (now - after) * (u + cfg * (c - u))
        return self.decode(x / 0.5)

    @torch.no_grad()
    def strangely(self, a, b):
        return self.generate(a, b[0], b[1], b[2], *b[3])


class Bare(nn.Module):
    """Has no method that looks like a sampler."""

    def __init__(self):
        super().__init__()
        self.inner = Model()

    def strangely(self, prompts, numbers):
        return self.inner.generate(prompts, *numbers)


def build():
    return Model()


def bare():
    return Bare()


def pictures(model, request):
    numbers = (request.num_steps, request.guidance_scale, request.generator, request.height, request.width)
    return model.strangely(request.prompts, numbers)


class Thrice(Model):
    """Asks its network three times a step, in a way that no declared solver has."""

    @torch.no_grad()
    def generate(self, prompts, steps, cfg, generator, height, width):
        x = torch.randn(len(prompts), 3, height // 8, width // 8, generator=generator)
        ones = torch.ones(len(prompts))
        for k in range(3 * steps):
            t = k / (3 * steps)
            x = x + self.net(x, t * ones, ones > 0, cfg * ones[:, None, None, None]) / (3 * steps) + 0.01 * x.flip(1)
        return self.decode(x)


def thrice():
    return Thrice()
