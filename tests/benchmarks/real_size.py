"""A pipeline of real size with random weights: a transformer of about 600 M parameters and an f32c32 decoder."""

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fmcheck.case import Case
from fmcheck.spec import FlowSpec
from fmcheck.subject import Point, Request, Subject

CHANNELS, FACTOR = 32, 32
SPEC = FlowSpec(
    time_argument="t",
    guidance_formula="uncond_plus",
    grid="uniform",
    evaluation_point="left",
    initial_state="noise",
    latent_channels=CHANNELS,
    downsampling=FACTOR,
)


@dataclass(frozen=True)
class Size:
    """Width and depth of the transformer, and channels of the decoder from the latent up (one a doubling)."""

    width: int = 1152
    depth: int = 25
    heads: int = 16
    decoder: tuple[int, ...] = (1024, 512, 256, 128, 64)


class Block(nn.Module):
    """Attention and MLP under a modulation of its own (adaLN-zero without the zero, as weights are random)."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.heads = size.heads
        self.modulation = nn.Linear(size.width, 6 * size.width)
        self.qkv, self.out = nn.Linear(size.width, 3 * size.width), nn.Linear(size.width, size.width)
        self.mlp = nn.Sequential(
            nn.Linear(size.width, 4 * size.width), nn.GELU(), nn.Linear(4 * size.width, size.width)
        )

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        shift, scale, gate, shift2, scale2, gate2 = self.modulation(F.silu(condition))[:, None].chunk(6, dim=-1)
        inner = F.layer_norm(x, x.shape[-1:]) * (1 + scale) + shift
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.qkv(inner).chunk(3, dim=-1))
        x = x + gate * self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return x + gate2 * self.mlp(F.layer_norm(x, x.shape[-1:]) * (1 + scale2) + shift2)


class Transformer(nn.Module):
    """`v(x, t, null)` on one token a latent cell."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.embed, self.null = nn.Linear(CHANNELS, size.width), nn.Embedding(2, size.width)
        self.time = nn.Sequential(nn.Linear(256, size.width), nn.SiLU(), nn.Linear(size.width, size.width))
        self.blocks = nn.ModuleList(Block(size) for _ in range(size.depth))
        self.out = nn.Linear(size.width, CHANNELS)

    def forward(self, x: Tensor, t: Tensor, null: Tensor) -> Tensor:
        frequencies = torch.exp(-torch.arange(128, device=x.device) / 14)
        waves = (t.float()[:, None] * 1000 * frequencies).to(self.out.weight.dtype)
        condition = self.time(torch.cat([waves.sin(), waves.cos()], -1)) + self.null(null.long())
        tokens = self.embed(x.to(self.out.weight.dtype).flatten(2).transpose(1, 2))
        for block in self.blocks:
            tokens = block(tokens, condition)
        return self.out(F.layer_norm(tokens, tokens.shape[-1:])).transpose(1, 2).unflatten(2, x.shape[-2:])


class Decoder(nn.Module):
    """Latents to pictures in [-1, 1], five doublings."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        widths = (CHANNELS, *size.decoder)
        self.stages = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(widths))
        self.out = nn.Conv2d(widths[-1], 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(self.out.weight.dtype)
        for stage in self.stages:
            x = F.interpolate(F.silu(stage(x)), scale_factor=2, mode="nearest")
        return torch.tanh(self.out(x)).float()


class Pipeline(nn.Module):
    def __init__(self, size: Size) -> None:
        super().__init__()
        self.transformer, self.decoder = Transformer(size), Decoder(size)

    @torch.no_grad()
    def generate(self, request: Request) -> Tensor:
        batch, device = len(request.prompts), self.decoder.out.weight.device
        shape = (batch, CHANNELS, request.height // FACTOR, request.width // FACTOR)
        x = torch.randn(shape, generator=request.generator).to(device)
        edges = torch.linspace(0, 1, request.num_steps + 1).tolist()
        null = torch.arange(2 * batch, device=device) >= batch
        for start, end in pairwise(edges):
            t = torch.full((2 * batch,), start, device=device)
            cond, uncond = self.transformer(torch.cat([x, x]), t, null).float().chunk(2)
            x = x + (end - start) * (uncond + request.guidance_scale * (cond - uncond))
        return self.decoder(x)


def real_subject(size: Size, *, pixels: int, device: str, dtype: str, num_steps: int) -> Subject:
    """The subject of the pipeline; the prompt only seeds nothing, so rules about text have nothing to look at."""

    def build(case: Case) -> Pipeline:
        with torch.device(case.device):
            return Pipeline(size).to(case.torch_dtype).eval()

    case = Case(
        prompts=("a",), height=pixels, width=pixels, num_steps=num_steps, guidance_scale=3.0, device=device, dtype=dtype
    )
    return Subject(
        name=f"transformer of {size.depth} blocks of {size.width}",
        build=build,
        generate=lambda model, request: model.generate(request),
        velocity=Point("transformer", arguments={"x": "x", "time": "t", "null": "null"}),
        decode="decoder",
        spec=SPEC,
        case=case,
        dtypes=(dtype,),
    )
