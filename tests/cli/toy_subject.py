"""A pipeline of a few lines whose runs take a millisecond. Tests copy this file into a project as `toy.py`."""

import itertools
import math
import os
import time
from pathlib import Path

import torch

from fmcheck import Case, FlowSpec, Request, Subject


class Toy(torch.nn.Module):
    """A velocity that depends on state, time and condition, and an Euler loop around it."""

    def __init__(self, weight_error: float = 0.0) -> None:
        super().__init__()
        self.gain = torch.nn.Parameter(torch.ones(()))
        self.weight_error = weight_error

    def velocity(self, x: torch.Tensor, time: torch.Tensor, null: torch.Tensor) -> torch.Tensor:
        condition = torch.where(null, 0.25, 1.0).reshape(-1, 1, 1, 1)
        return self.gain * torch.sin(3 * x + condition) + time.reshape(-1, 1, 1, 1) * condition

    @torch.no_grad()
    def generate(self, request: Request) -> torch.Tensor:
        batch, size = len(request.prompts), (request.height // 8, request.width // 8)
        x = torch.randn(batch, 2, *size, generator=request.generator)
        weight = request.guidance_scale + self.weight_error
        edges = torch.linspace(0, 1, request.num_steps + 1).tolist()
        null = torch.arange(2 * batch) >= batch
        for left, right in itertools.pairwise(edges):
            time = torch.full((2 * batch,), (left + right) / 2)
            cond, uncond = self.velocity(torch.cat([x, x]), time, null).chunk(2)
            x = x + (right - left) * ((1 + weight) * cond - weight * uncond)
        up = torch.nn.functional.interpolate(x.mean(1, keepdim=True), scale_factor=8)
        return torch.tanh(up).expand(-1, 3, -1, -1)


def make(name: str, build=lambda case: Toy(), generate=lambda model, request: model.generate(request)) -> Subject:
    return Subject(
        name=name,
        build=build,
        generate=generate,
        velocity="velocity",
        spec=FlowSpec(time_argument="t", grid="uniform", initial_state="noise", latent_channels=2, downsampling=8),
        case=Case(prompts=("a", "b"), height=16, width=24),
    )


def _crash(model: Toy, request: Request) -> torch.Tensor:
    raise ValueError("the state is nowhere")


def _chatter(model: Toy, request: Request) -> torch.Tensor:
    print("step 1 of many")
    return model.generate(request)


def _leave(model: Toy, request: Request) -> torch.Tensor:
    raise SystemExit(0)


def _linger(model: Toy, request: Request) -> torch.Tensor:
    Path(os.environ["TOY_STARTED"]).touch()
    time.sleep(400)
    return model.generate(request)


subject = make("toy")
broken = make("toy with another scale", build=lambda case: Toy(weight_error=1.0))
crashing = make("toy that raises", generate=_crash)
slow = make("slow toy", generate=_linger)
talking = make("talking toy", generate=_chatter)
leaving = make("toy that leaves", generate=_leave)
unbuildable = make("no toy", build=lambda case: math.sqrt("2"))
not_a_subject = 3
model = Toy()


def build_model() -> Toy:
    return Toy()


def factory() -> Subject:
    return make("toy from a function")
