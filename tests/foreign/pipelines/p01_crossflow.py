"""A CrossFlow-like model: the flow starts at a latent made from the prompt, not at noise.

Conventions: flow time t from 0 (text latent) to 1 (image latent); the network is told the log-SNR 4 - 8t and a
boolean null indicator; doubled batch with the conditional half first, `(1 + w) c - w u`; logit-normal quantile grid,
Euler steps evaluated in the middle of the step; path `(1 - (1 - s) t) x0 + t x1` with s = 1e-5. The decoder takes
`state / 0.41 + 0.15`. Images in [-1, 1], sides multiples of 8. Noise of the text latent comes from the caller's
generator.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SIGMA_MIN, SCALE, SHIFT = 1e-5, 0.41, 0.15


def encode_prompts(prompts: list[str], extra: int = 0) -> tuple[Tensor, Tensor]:
    """Bytes as ids, after a start token; `(ids, mask)`, both int64 `[B, L]`."""
    rows = [[256, *prompt.encode()] for prompt in prompts]
    length = max(map(len, rows)) + extra
    ids = torch.tensor([row + [257] * (length - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows])
    return ids, mask


class TextLatent(nn.Module):
    """Every latent pixel attends to the prompt: `[B, L]` to a drawn latent `[B, 4, h, w]`."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.table, self.where = nn.Embedding(258, width), nn.Linear(4, width)
        self.mean, self.log_std = nn.Linear(width, 4), nn.Linear(width, 4)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, grid: tuple[int, int], generator=None) -> Tensor:
        h, w = grid
        like = self.where.weight
        ys, xs = torch.meshgrid(torch.linspace(-2, 2, h), torch.linspace(-2, 2, w), indexing="ij")
        place = torch.stack((ys.sin(), ys.cos(), xs.sin(), xs.cos()), -1).reshape(1, h * w, 4).to(like)
        words = self.table(input_ids)
        scores = 3 * self.where(place) @ words.transpose(1, 2) / words.shape[-1] ** 0.5
        scores = scores.masked_fill(attention_mask[:, None] == 0, float("-inf"))
        found = (scores.softmax(-1) @ words).transpose(1, 2).unflatten(2, (h, w)).movedim(1, -1)
        mean, std = self.mean(found).float() * 2, (0.1 * self.log_std(found).float() - 1).exp()
        noise = torch.randn(mean.shape, generator=generator, device=mean.device)
        return (mean + std * noise).movedim(-1, 1).contiguous()


class Backbone(nn.Module):
    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.inp, self.mid = nn.Conv2d(4, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)
        self.out, self.clock, self.null = nn.Conv2d(width, 4, 1), nn.Linear(2, width), nn.Embedding(2, width)

    def forward(self, x: Tensor, log_snr: Tensor, null: Tensor) -> Tensor:
        phase = log_snr.float()[:, None] / 4
        clock = self.clock(torch.cat((phase.sin(), phase.cos()), 1).to(x.dtype)) + self.null(null.long())
        return self.out(F.silu(self.mid(F.silu(self.inp(x) + clock[:, :, None, None])))) * 2


class Codec(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(3, 4, 8, stride=8), nn.ConvTranspose2d(4, 3, 8, stride=8)

    def encode(self, images: Tensor) -> Tensor:
        return self.down(images)

    def to_latent(self, state: Tensor) -> Tensor:
        return state / SCALE + SHIFT

    def decode(self, latent: Tensor) -> Tensor:
        return torch.tanh(self.up(latent))


class CrossFlow(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.text, self.backbone, self.codec = TextLatent(), Backbone(), Codec()

    @torch.no_grad()
    def text_to_image(self, ids, mask, *, height: int, width: int, steps: int, w: float, generator) -> Tensor:
        if height % 8 or width % 8:
            raise ValueError(f"sides must be multiples of 8, got {height}x{width}")
        if steps < 1:
            raise ValueError(f"steps must be at least 1, got {steps}")
        x = self.text(ids, mask, (height // 8, width // 8), generator).float()
        edges = torch.special.ndtri(torch.linspace(0, 1, steps + 1, dtype=torch.float64)).sigmoid()
        dtype = self.backbone.out.weight.dtype
        for start, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
            log_snr = torch.full((2 * len(x),), 4 - 8 * (start + end) / 2, device=x.device)
            null = torch.arange(2 * len(x), device=x.device) >= len(x)
            c, u = self.backbone(torch.cat((x, x)).to(dtype), log_snr, null).float().chunk(2)
            x = x + (end - start) * ((1 + w) * c - w * u)
        return self.codec.decode(self.codec.to_latent(x).to(dtype)).float()

    def training_loss(self, ids, mask, images: Tensor, generator) -> Tensor:
        x1 = (self.codec.encode(images) - SHIFT) * SCALE
        x0 = self.text(ids, mask, tuple(x1.shape[2:]), generator)
        t = torch.randn(len(x1), generator=generator, device=x1.device).sigmoid()
        null = torch.rand(len(x1), generator=generator, device=x1.device) < 0.1
        # A marked row must not know its prompt, but its path starts there: it gets the image of another marked row.
        rows = null.nonzero()[:, 0]
        x1 = x1.index_copy(0, rows, x1[rows.roll(1)])
        s = t[:, None, None, None]
        state = (1 - (1 - SIGMA_MIN) * s) * x0 + s * x1
        velocity = self.backbone(state, 4 - 8 * t, null)
        return (velocity - (x1 - (1 - SIGMA_MIN) * x0)).square().mean()


def make_crossflow(seed: int = 1, device="cpu", dtype=torch.float32) -> CrossFlow:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = CrossFlow()
    return model.to(device, dtype).eval()
