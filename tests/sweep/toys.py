"""A pipeline whose every number is known by hand, in the convention `u + s (c - u)`, and judges whose answer is known.

The conditional velocity is 0.1 everywhere and the unconditional one 0, so that the state is `x0 + 0.1 s t`, whatever
the number of steps, and the picture (the state itself, eight times as large) is shifted by exactly `0.1 (s - 1)` from
the unguided one, at s = 1.
"""

import hashlib
import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fmcheck import Case, FlowSpec, Request, Subject
from fmcheck.judge import Judge

PROMPTS = tuple(f"prompt {i}" for i in range(12))


class Toy(torch.nn.Module):
    """Noise of deviation 0.05, then a straight way."""

    def __init__(self, push: float = 0.1) -> None:
        super().__init__()
        self.push = torch.nn.Parameter(torch.tensor(push))

    def velocity(self, x: Tensor, time: Tensor, null: Tensor) -> Tensor:
        return self.push * (~null).reshape(-1, 1, 1, 1) * torch.ones_like(x)

    def decode(self, x: Tensor) -> Tensor:
        return torch.nn.functional.interpolate(x, scale_factor=8).float()

    @torch.no_grad()
    def generate(self, request: Request) -> Tensor:
        batch = len(request.prompts)
        x = 0.05 * torch.randn(batch, 3, request.height // 8, request.width // 8, generator=request.generator)
        null = torch.arange(2 * batch) < batch
        for left, right in itertools.pairwise(torch.linspace(0, 1, request.num_steps + 1).tolist()):
            uncond, cond = self.velocity(torch.cat([x, x]), torch.full((2 * batch,), left), null).chunk(2)
            x = x + (right - left) * (uncond + request.guidance_scale * (cond - uncond))
        return self.decode(x)


def toy(
    judge: Judge | None = None,
    generate: Callable[[Toy, Request], Tensor] = lambda model, request: model.generate(request),
    build: Callable[[Case], Toy] = lambda case: Toy(),
) -> Subject:
    """The toy as a subject."""
    return Subject(
        name="sweep toy",
        build=build,
        generate=generate,
        velocity="velocity",
        decode="decode",
        spec=FlowSpec(
            time_argument="t",
            grid="uniform",
            evaluation_point="left",
            guidance_formula="uncond_plus",
            guidance_layout="uncond_first",
            initial_state="noise",
            latent_channels=3,
            downsampling=8,
        ),
        case=Case(prompts=PROMPTS[:2], height=16, width=24),
        judge=judge,
    )


def _likes_03(prompts: Sequence[str], images: Tensor) -> dict[str, Tensor]:
    """Best where the mean of the picture is 0.3, which is s = 3; every prompt has an offset of its own."""
    offsets = torch.tensor([0.05 * (PROMPTS.index(p) % 4) for p in prompts], dtype=torch.float64)
    away = (images.double().flatten(1).mean(1) - 0.3).abs()
    return {"match": 0.8 - away - offsets, "calm": 1 - images.double().flatten(1).mean(1).clamp(0, 1)}


def _noise(prompts: Sequence[str], images: Tensor) -> dict[str, Tensor]:
    """A uniform number from a hash of the picture, which knows nothing of the scale."""
    digests = [hashlib.sha256(image.contiguous().numpy().tobytes()).digest() for image in images]
    return {"match": torch.tensor([int.from_bytes(d[:6], "big") / 2**48 for d in digests], dtype=torch.float64)}


likes_03 = Judge(score=_likes_03, headline="match", prompts=PROMPTS)
noise_judge = Judge(score=_noise, headline="match", prompts=PROMPTS)
