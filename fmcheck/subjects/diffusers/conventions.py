"""The conventions of a pipeline, learned from a few small calls of it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from fmcheck.errors import DeclarationError
from fmcheck.subjects.diffusers.calling import Calling
from fmcheck.subjects.diffusers.fitting import (
    Branches,
    Formula,
    branches,
    embedded_scale,
    formula,
    state_name,
    time_name,
)
from fmcheck.subjects.diffusers.grids import Asked, grid_fields
from fmcheck.subjects.diffusers.layout import latent_fields
from fmcheck.subjects.diffusers.observing import Observation, Step, listening

__all__ = ["Conventions", "learn"]

_PROMPTS = ("a large red circle, top left", "a small green square")
_OTHERS = ("a yellow triangle", "two tiny purple crosses at the bottom")
_SCALE = 3.5
_STEPS = 3
# Not one: a schedule that is stretched to an end has no length there, and diffusers divides by it.
_FEW = 2


@dataclass(frozen=True)
class Conventions:
    """What was learned: how to call the pipeline, the names of the network's arguments, FlowSpec's fields."""

    calling: Calling
    state: str
    time: str | None
    as_list: bool
    whole_times: bool
    fields: dict[str, Any]


@dataclass(frozen=True)
class _Probe:
    pipe: Any
    network: str
    calling: Calling
    size: tuple[int, int]

    def __call__(self, prompts: Sequence[str], steps: int, scale: float, **more: Any) -> Observation:
        device = getattr(self.pipe, "_execution_device", "cpu")
        generator = torch.Generator(device).manual_seed(0)
        with torch.random.fork_rng(devices=[]), listening(self.pipe, self.network) as seen:
            torch.manual_seed(0)
            self.calling(self.pipe, prompts, size=self.size, steps=steps, scale=scale, generator=generator, **more)
        if not seen.steps or not all(step.calls for step in seen.steps):
            raise DeclarationError(
                f"{type(self.pipe).__name__}: expected calls of {self.network!r} before every step of the scheduler; "
                f"found {len(seen.steps)} steps"
            )
        return seen


def learn(pipe: Any, network: str, size: tuple[int, int], options: dict[str, Any]) -> Conventions:
    """Observes a few calls of two prompts and three steps.

    Raises:
        DeclarationError: the calls cannot be read as a flow: three branches, no state among the network's arguments,
            an unknown prediction type.
    """
    first = _Probe(pipe, network, Calling.of(pipe, True, options), size)(_PROMPTS, _FEW, _SCALE)
    embedded = embedded_scale(first.steps[0].calls[0], _SCALE) is not None
    probe = _Probe(pipe, network, Calling.of(pipe, embedded, options), size)
    seen, other = probe(_PROMPTS, _STEPS, _SCALE), probe(_OTHERS, _STEPS, _SCALE)
    step = seen.steps[0]
    state = state_name(step.calls[0], step.sample)
    found = branches(step, other.steps[0], len(_PROMPTS))
    if state is None or found is None or seen.decoded is None:
        rows = [len(call.output) for call in step.calls]
        raise DeclarationError(
            f"{type(pipe).__name__}: a step with two prompts calls its network with {rows} rows; expected the state in "
            "one or two branches, and a decoder that is given the last state"
        )
    if float(seen.sigmas.max()) > 1 + 1e-6:
        raise DeclarationError(
            f"{type(pipe).__name__}: its {type(pipe.scheduler).__name__} has noise levels up to "
            f"{float(seen.sigmas.max()):.4g}; expected those of a flow, from 1 to 0 "
            "(flow-matching schedulers, or use_flow_sigmas=True)"
        )
    time = time_name(seen.steps, state)
    handed = formula(step, found, _SCALE)
    asked = _asked(probe, seen)
    fields = {
        **_guidance(found, handed, embedded, probe),
        **_time(seen, time),
        **_steps(pipe, seen),
        **grid_fields(pipe.scheduler, asked, _patch(getattr(pipe, network))),
        **latent_fields(pipe, seen.steps[-1].result, seen.decoded, size[0]),
        "initial_state": "noise",
        "image_range": (0.0, 1.0),
        "decode_range": (-1.0, 1.0),
    }
    told = step.calls[0].inputs.get(time) if time is not None else None
    whole = isinstance(told, torch.Tensor) and not told.is_floating_point()
    return Conventions(probe.calling, state, time, state in step.calls[0].lists, whole, fields)


def _asked(probe: _Probe, seen: Observation) -> list[Asked]:
    """What the scheduler was set to here, and what it is set to for more steps of a picture twice as wide."""
    height, width = probe.size
    wide = replace(probe, size=(height, 2 * width))(_PROMPTS, _STEPS + 2, _SCALE)
    found = []
    for steps, one in ((_STEPS, seen), (_STEPS + 2, wide)):
        cells = 0 if one.decoded is None else one.decoded[0, 0].numel()
        found += [Asked(steps, cells, arguments) for arguments in one.timetables[-1:]]
    return found


def _patch(network: Any) -> int:
    """Side of the network's tokens in latent cells, where its configuration says it as one number."""
    patch = getattr(network, "config", {}).get("patch_size", 1)
    return patch if isinstance(patch, int) else 1


def _guidance(found: Branches, handed: Formula | None, embedded: bool, probe: _Probe) -> dict[str, Any]:
    handed = handed or Formula("uncond_plus", "none", 1)
    fields: dict[str, Any] = {
        "prediction": "reverse_velocity" if handed.sign == 1 else "velocity",
        "guidance_formula": handed.name,
        "guidance_norm": handed.norm,
        "guidance_rescale": handed.rescale,
    }
    if found.uncond is None:
        return {**fields, "guidance_layout": "embedded" if embedded else "separate"}
    fields["guidance_layout"] = found.layout
    # Up to some scale many pipelines do not guide at all; with the neutral one alone there is nothing to declare.
    for scale, meaning in ((1.0, 1.0), (0.5, 0.5), (-0.5, 0.0)):
        step = probe(_PROMPTS, _FEW, scale).steps[0]
        if sum(len(call.output) for call in step.calls) == len(_PROMPTS):
            return {**fields, "guidance_from": meaning}
    return fields


def _time(seen: Observation, name: str | None) -> dict[str, Any]:
    """`time_offset + time_slope * t` through the first and last call; the scheduler says sigma = 1 - t."""
    if name is None:
        return {}
    told = [float(torch.as_tensor(step.calls[0].inputs[name]).reshape(-1)[0]) for step in seen.steps]
    flow = [1.0 - float(sigma) for sigma in seen.sigmas[: len(told)]]
    slope = (told[-1] - told[0]) / (flow[-1] - flow[0])
    offset = told[0] - slope * flow[0]
    known = {"timestep": (1000.0, -1000.0), "sigma": (1.0, -1.0), "t": (0.0, 1.0)}
    for argument, (o, s) in known.items():
        if abs(o - offset) <= 1e-3 * abs(s) and abs(s - slope) <= 1e-3 * abs(s):
            return {"time_argument": argument}
    if any(abs(offset + slope * t - number) > 1e-3 * abs(slope) for t, number in zip(flow, told, strict=True)):
        return {"time_argument": "timestep"}  # not affine: the rules shall say so
    return {"time_argument": "timestep", "time_offset": float(f"{offset:.5g}"), "time_slope": float(f"{slope:.5g}")}


def _steps(pipe: Any, seen: Observation) -> dict[str, Any]:
    order = int(getattr(pipe.scheduler, "order", 1))
    dtype = seen.steps[-1].sample.dtype
    fields: dict[str, Any] = {"state_dtype": "float32" if dtype == torch.float32 else "network"}
    fields |= {"evaluation_point": "left", "solver": "heun" if order == 2 else "euler"}
    if order == 1 and not all(_euler(step, seen, k) for k, step in enumerate(seen.steps)):
        fields["solver"] = "stochastic" if any(step.drew for step in seen.steps) else "other"
    return fields


def _euler(step: Step, seen: Observation, k: int) -> bool:
    """Whether a step moves the state by `(sigma' - sigma) model_output`, up to roundings of the state's dtype."""
    expected = float(seen.sigmas[k + 1] - seen.sigmas[k]) * step.model_output.double()
    sample, rounding = step.sample.double(), 16 * torch.finfo(step.result.dtype).eps
    size = float(sample.abs().max() + expected.abs().max())
    return float((step.result.double() - sample - expected).abs().max()) <= rounding * size
