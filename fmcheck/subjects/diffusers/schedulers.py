"""Schedulers of diffusers alone: the loop that its documentation shows, around a tiny network with seeded weights."""

import inspect
import zlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from fmcheck.case import Case
from fmcheck.spec import FlowSpec
from fmcheck.subject import Point, Request, Subject

__all__ = ["SCHEDULERS", "Loop", "scheduler_subject"]

_CHANNELS, _FACTOR, _WIDTH, _SHIFT = 4, 8, 16, 3.0


def _flow(name: str, **changes: Any) -> Callable[[], Any]:
    def make() -> Any:
        import diffusers

        return getattr(diffusers, name)(**changes)

    return make


_MULTISTEP: Mapping[str, Any] = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": _SHIFT}
_SOLVERS: Mapping[str, str] = {"FlowMatchEulerDiscreteScheduler": "euler", "FlowMatchHeunDiscreteScheduler": "heun"}
_STOCHASTIC = "FlowMatchLCMScheduler"

# Name of a scheduler -> a function that makes one, set up for a flow.
SCHEDULERS: Mapping[str, Callable[[], Any]] = MappingProxyType(
    {
        **{name: _flow(name, shift=_SHIFT) for name in (*_SOLVERS, _STOCHASTIC)},
        **{name: _flow(name, **_MULTISTEP) for name in ("UniPCMultistepScheduler", "DPMSolverMultistepScheduler")},
    }
)


class _Network(nn.Module):
    """`[N, 4, h, w]`, times `[N]` and text `[N, 16]` to noise minus data `[N, 4, h, w]`."""

    def __init__(self) -> None:
        super().__init__()
        self.into = nn.Conv2d(_CHANNELS, _WIDTH, 3, padding=1)
        self.time = nn.Linear(2, _WIDTH)
        self.text = nn.Linear(_WIDTH, _WIDTH)
        self.out = nn.Conv2d(_WIDTH, _CHANNELS, 3, padding=1)

    def forward(self, sample: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        phase = timestep.to(sample.dtype)[:, None] / 300
        condition = self.time(torch.cat([phase.sin(), phase.cos()], 1)) + self.text(text)
        hidden: Tensor = self.into(sample) + condition[:, :, None, None]
        found: Tensor = self.out(nn.functional.silu(hidden))
        return found


class Loop(nn.Module):
    """A text-to-image pipeline that is nothing but a network, a scheduler and a decoder."""

    def __init__(self, scheduler: Any) -> None:
        super().__init__()
        self.scheduler = scheduler
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(zlib.crc32(b"scheduler"))
            self.network = _Network()
            self.picture = nn.Conv2d(_CHANNELS, 3, 1)
        self.eval().requires_grad_(False)

    def encode(self, prompts: list[str]) -> Tensor:
        """Text features `[B, 16]`: random numbers with the prompt for a seed."""
        generators = [torch.Generator().manual_seed(zlib.crc32(prompt.encode())) for prompt in prompts]
        rows = [torch.randn(_WIDTH, generator=generator) for generator in generators]
        weight = self.picture.weight
        return torch.stack(rows).to(weight.device, weight.dtype)

    def decode(self, latent: Tensor) -> Tensor:
        """`[B, 3, 8 h, 8 w]` in [-1, 1]."""
        picture: Tensor = self.picture(latent).tanh()
        return picture.repeat_interleave(_FACTOR, 2).repeat_interleave(_FACTOR, 3)

    @torch.no_grad()
    def generate(self, request: Request) -> Tensor:
        """As diffusers documents it: `set_timesteps`, then a network call and a `step` for each of `timesteps`."""
        text = torch.cat([self.encode([""] * len(request.prompts)), self.encode(request.prompts)])
        weight, generator = self.picture.weight, request.generator
        shape = (len(request.prompts), _CHANNELS, request.height // _FACTOR, request.width // _FACTOR)
        latents = torch.randn(shape, generator=generator, device=weight.device)
        takes = "generator" in inspect.signature(self.scheduler.step).parameters
        more = {"generator": generator} if takes else {}
        self.scheduler.set_timesteps(request.num_steps, device=weight.device)
        for t in self.scheduler.timesteps:
            doubled = torch.cat([latents, latents]).to(weight.dtype)
            uncond, cond = self.network(doubled, t.expand(len(doubled)), text).chunk(2)
            guided = uncond + request.guidance_scale * (cond - uncond)
            latents = self.scheduler.step(guided, t, latents, return_dict=False, **more)[0]
        return self.decode(latents)


def _generate(model: Loop, request: Request) -> Tensor:
    if request.height % _FACTOR or request.width % _FACTOR:
        raise ValueError(f"height and width must be multiples of {_FACTOR}; found {request.height}x{request.width}")
    return model.generate(request)


def scheduler_subject(name: str) -> Subject:
    """The subject of one of `SCHEDULERS`."""
    make = SCHEDULERS[name]
    multistep = name not in _SOLVERS and name != _STOCHASTIC
    solver: Any = _SOLVERS.get(name, "other" if multistep else "stochastic")
    grid: dict[str, Any] = {"grid": "declared"}
    if not multistep:
        # Their first sigma is 1 and their last is what the shift makes of 1/1000, which is then shifted once more.
        grid = {"grid": "shifted", "grid_shift": _SHIFT, "grid_last_sigma": float(make().sigma_min)}

    def edges(case: Case) -> list[float]:
        scheduler = make()
        scheduler.set_timesteps(case.num_steps)
        return [1.0 - float(sigma) for sigma in scheduler.sigmas.double()]

    return Subject(
        name=f"diffusers:{name}",
        build=lambda case: Loop(make()).to(case.device),
        generate=_generate,
        velocity=Point("network", arguments={"x": "sample", "time": "timestep", "null": None}),
        decode="decode",
        spec=FlowSpec(
            time_argument="timestep",
            guidance_formula="uncond_plus",
            guidance_layout="uncond_first",
            evaluation_point="left",
            solver=solver,
            prediction="reverse_velocity",
            initial_state="noise",
            latent_channels=_CHANNELS,
            downsampling=_FACTOR,
            **grid,
        ),
        case=Case(height=64, width=64, guidance_scale=3.5),
        time_edges=edges if multistep else None,
        annotations={"velocity.time": Int[Tensor, "N"]} if multistep else {},
    )
