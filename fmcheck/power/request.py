"""Faults between the caller's request and the pipeline."""

from dataclasses import replace

import torch

from fmcheck.power.fault import on_request
from fmcheck.subject import Request

__all__: list[str] = []


@on_request(rules=("FM301",))
def one_step_more(request: Request) -> Request:
    """One step more than asked for is made."""
    return replace(request, case=request.case.but(num_steps=request.case.num_steps + 1))


@on_request(rules=("FM309", "FM301"))
def steps_ignored(request: Request) -> Request:
    """Three steps are made whatever is asked for."""
    return replace(request, case=request.case.but(num_steps=3)) if request.case.num_steps != 3 else request


@on_request(rules=("FM203",))
def guidance_one_tenth_too_strong(request: Request) -> Request:
    """The guidance scale is multiplied by 1.1."""
    return replace(request, case=request.case.but(guidance_scale=1.1 * request.case.guidance_scale))


@on_request(rules=("FM207", "FM203"))
def guidance_capped(request: Request) -> Request:
    """Guidance scales above 5 are taken for 5."""
    case = request.case
    return replace(request, case=case.but(guidance_scale=5.0)) if case.guidance_scale > 5 else request


@on_request(rules=("FM705", "FM706"))
def seed_ignored(request: Request) -> Request:
    """The noise comes from a generator of the pipeline's own, with a fixed seed."""
    return replace(request, generator=torch.Generator(request.generator.device).manual_seed(0))


@on_request(rules=("FM707", "FM706"))
def global_generator_used(request: Request) -> Request:
    """The noise comes from the process's global generator."""
    return replace(request, generator=torch.default_generator)


@on_request(rules=("FM104", "FM702"))
def height_and_width_exchanged(request: Request) -> Request:
    """Height and width are taken for each other."""
    case = request.case
    return (
        replace(request, case=case.but(height=case.width, width=case.height)) if case.height != case.width else request
    )
