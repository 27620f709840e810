"""A toy text-to-image flow for the tests of single rules: correct, a few milliseconds a picture, easy to break.

`toy_subject()` is correct under every rule; `toy_subject(Broken)` takes a subclass of :class:`Toy` with one method
replaced, and further keywords replace fields of the subject.
"""

import itertools
import warnings
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fmcheck.case import Case
from fmcheck.flow import time_edges
from fmcheck.rules import get_rule
from fmcheck.run import Outcome, Session
from fmcheck.spec import FlowSpec
from fmcheck.subject import Request, Subject

CHANNELS, FACTOR, SIDE, WORDS, LENGTH = 4, 8, 8, 64, 12
SPEC = FlowSpec(latent_channels=CHANNELS, downsampling=FACTOR, latent_scale=0.5, latent_shift=0.25, sigma_min=0.01)
CASE = Case(height=SIDE * FACTOR, width=SIDE * FACTOR)


def tokenize(_: Any, prompts: list[str]) -> dict[str, Tensor]:
    """`input_ids`, `attention_mask` int64 `[B, 12]`; 1 begins a text, 0 pads it, words are 2 and up."""
    ids = torch.zeros(len(prompts), LENGTH, dtype=torch.int64)
    for row, prompt in enumerate(prompts):
        words = [2 + sum(map(ord, word)) % (WORDS - 2) for word in prompt.split()]
        ids[row, : len(words) + 1] = torch.tensor([1, *words])
    return {"input_ids": ids, "attention_mask": (ids != 0).long()}


def pad(_: Any, inputs: Mapping[str, Any], extra: int) -> dict[str, Tensor]:
    return {name: F.pad(value, (0, extra)) for name, value in inputs.items()}


def masked(_: Any, inputs: Mapping[str, Any]) -> dict[str, Tensor]:
    mask = inputs["attention_mask"]
    return {"input_ids": torch.where(mask.bool(), inputs["input_ids"], WORDS - 1), "attention_mask": mask}


class TextEncoder(nn.Module):
    """Masked mean of word vectors plus noise of the caller's generator, `[B, D]`."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.words = nn.Parameter(torch.randn(WORDS, CHANNELS * SIDE * SIDE, generator=generator))

    def forward(self, input_ids: Tensor, attention_mask: Tensor, generator: torch.Generator) -> Tensor:
        weight = attention_mask.to(self.words.dtype)
        # Row by row and only over the words, so that padding does not change the order of the sum.
        rows = [self.words[i[w.bool()]].sum(0) / w.sum() for i, w in zip(input_ids, weight, strict=True)]
        mean = torch.stack(rows)
        return mean + 0.5 * torch.randn(mean.shape, generator=generator)


class Velocity(nn.Module):
    """A velocity that depends on the state, nonlinearly on the time, and on the indicator, row by row."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(CHANNELS, generator=generator))
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: Tensor, log_snr: Tensor, null: Tensor) -> Tensor:
        if not log_snr.dim() == null.dim() == 1:
            raise ValueError("log_snr and null: expected one axis")
        t = ((4 - log_snr) / 8)[:, None, None, None].to(x.dtype)
        flag = null[:, None, None, None].to(x.dtype)
        v = torch.tanh(self.weight[:, None, None] * x + t.square()) - 0.3 * x + flag * (0.5 * x.flip(1) - 0.2)
        return self.dropout(v)


class Codec(nn.Module):
    """`encode` ends in the flow's units, `sample` goes back to the decoder's, `decode` makes pictures in [-1, 1]."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.mix = nn.Parameter(0.5 * torch.randn(3, CHANNELS, generator=generator))

    def encode(self, image: Tensor) -> Tensor:
        latent = torch.einsum("kc,nkhw->nchw", self.mix, F.avg_pool2d(image, FACTOR))
        return (latent - SPEC.latent_shift) * SPEC.latent_scale

    def sample(self, x: Tensor) -> Tensor:
        return x / SPEC.latent_scale + SPEC.latent_shift

    def decode(self, x: Tensor) -> Tensor:
        small = torch.stack([(self.mix[k][:, None, None] * x).sum(1) for k in range(3)], dim=1)
        return torch.tanh(F.interpolate(small, scale_factor=FACTOR, mode="nearest"))


class Toy(nn.Module):
    """The sampler and the loss in small methods, each of which a test can replace."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.text_encoder = TextEncoder(generator)
        self.velocity = Velocity(generator)
        self.codec = Codec(generator)
        self.eval()

    def initial_state(self, z: Tensor, height: int, width: int) -> Tensor:
        if height % FACTOR or width % FACTOR:
            raise ValueError(f"height and width: expected multiples of {FACTOR}, found {height}x{width}")
        h, w = height // FACTOR, width // FACTOR
        if h * w == SIDE * SIDE:
            return z.reshape(-1, CHANNELS, h, w)
        warnings.warn("the text latent has another size: resizing", UserWarning, stacklevel=2)
        return F.interpolate(z.reshape(-1, CHANNELS, SIDE, SIDE), size=(h, w), mode="bilinear")

    def edges(self, num_steps: int) -> Tensor:
        return time_edges(num_steps, SPEC, dtype=torch.float32)

    def log_snr(self, t: Tensor, rows: int) -> Tensor:
        return (4 - 8 * t).expand(rows).clone()

    def null(self, rows: int, batch: int) -> Tensor:
        return torch.arange(rows) >= batch

    def velocity_at(self, x: Tensor, t: Tensor, scale: float) -> Tensor:
        batch = len(x)
        x_cat = torch.cat([x, x])
        cond, uncond = self.velocity(x_cat, self.log_snr(t, 2 * batch), self.null(2 * batch, batch)).chunk(2)
        return (1 + scale) * cond - scale * uncond

    def integrate(self, x: Tensor, num_steps: int, scale: float, generator: torch.Generator) -> Tensor:
        edges = self.edges(num_steps)
        for start, end in itertools.pairwise(edges):
            x = x + (end - start) * self.velocity_at(x, (start + end) / 2, scale)
        return x

    def finish(self, images: Tensor) -> Tensor:
        return images

    @torch.no_grad()
    def generate(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        scale: float,
        num_steps: int,
        generator: torch.Generator,
        height: int,
        width: int,
    ) -> Tensor:
        z = self.text_encoder(input_ids, attention_mask, generator)
        x = self.integrate(self.initial_state(z, height, width), num_steps, scale, generator)
        return self.finish(self.codec.decode(self.codec.sample(x)))

    def train_times(self, rows: int, generator: torch.Generator) -> Tensor:
        return torch.sigmoid(torch.randn(rows, generator=generator))

    def train_log_snr(self, t: Tensor) -> Tensor:
        return 4 - 8 * t

    def train_path(self, x0: Tensor, x1: Tensor, t: Tensor) -> Tensor:
        t = t[:, None, None, None]
        return (1 - (1 - SPEC.sigma_min) * t) * x0 + t * x1

    def train_target(self, x0: Tensor, x1: Tensor) -> Tensor:
        return x1 - (1 - SPEC.sigma_min) * x0

    def train_null(self, x1: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The null rows, and the path ends with those of the null rows exchanged among themselves."""
        null = torch.rand(len(x1), generator=generator) < SPEC.null_probability
        rows = null.nonzero().flatten()
        ends = x1.clone()
        ends[rows] = x1[rows[torch.randperm(len(rows), generator=generator)]]
        return null, ends

    def training_loss(
        self, images: Tensor, input_ids: Tensor, attention_mask: Tensor, generator: torch.Generator
    ) -> Tensor:
        z = self.text_encoder(input_ids, attention_mask, generator)
        x0 = self.initial_state(z, *images.shape[2:])
        with torch.no_grad():
            x1 = self.codec.encode(images)
        t = self.train_times(len(x0), generator)
        null, x1 = self.train_null(x1, generator)
        v = self.velocity(self.train_path(x0, x1, t), self.train_log_snr(t), null)
        return F.mse_loss(v, self.train_target(x0, x1))


def _generate(model: Toy, request: Request) -> Tensor:
    return model.generate(
        **request.inputs,
        scale=request.guidance_scale,
        num_steps=request.num_steps,
        generator=request.generator,
        height=request.height,
        width=request.width,
    )


def _loss(model: Toy, request: Request) -> Tensor:
    return model.training_loss(request.images, **request.inputs, generator=request.generator)


def toy_subject(model: type[Toy] = Toy, **overrides: Any) -> Subject:
    """The subject of a toy class, with fields of the subject replaced."""
    fields: dict[str, Any] = {
        "name": "toy",
        "build": lambda case: model(),
        "generate": _generate,
        "loss": _loss,
        "tokenize": tokenize,
        "pad": pad,
        "masked": masked,
        "entry": "generate",
        "loss_entry": "training_loss",
        "text": "text_encoder",
        "velocity": "velocity",
        "encode": "codec.encode",
        "sample": "codec.sample",
        "decode": "codec.decode",
        "spec": SPEC,
        "case": CASE,
    }
    return Subject(**{**fields, **overrides})


def judge(code: str, model: type[Toy] = Toy, **overrides: Any) -> Outcome:
    """The outcome of one rule on a toy."""
    return Session(toy_subject(model, **overrides)).judge(get_rule(code))
