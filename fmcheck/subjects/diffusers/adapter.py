"""A diffusers pipeline as a Subject."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from fmcheck.case import Case
from fmcheck.errors import DeclarationError
from fmcheck.spec import FlowSpec
from fmcheck.subject import Point, Request, Subject
from fmcheck.subjects.diffusers.calling import Calling
from fmcheck.subjects.diffusers.conventions import learn
from fmcheck.subjects.diffusers.lists import STACKED, show_rows
from fmcheck.subjects.diffusers.observing import network_name
from fmcheck.subjects.diffusers.timetable import Timetable, warm_up

__all__ = ["adapt"]


def adapt(fresh: Callable[[], Any], name: str, case: Case | None, options: Mapping[str, Any]) -> Subject:
    """The subject of the pipelines that `fresh` makes, each a copy of its own.

    Raises:
        DeclarationError: it makes no pipeline that can be read as a flow.
    """
    pipe = fresh()
    network = network_name(pipe)
    pipe.set_progress_bar_config(disable=True)
    side = _side(pipe) if case is None else 0
    native = case or Case(height=side, width=side, guidance_scale=3.5, dtype=_dtype(pipe, network))
    known = learn(pipe, network, (native.height, native.width), dict(options))
    multiple = _multiple(pipe, known.calling, known.fields["downsampling"], native)
    # Some pipelines answer with the next smaller legal size, and log that they do.
    odd = (native.height + multiple // 2, native.width)
    rounded = _answered(pipe, known.calling, odd) == (native.height, native.width)
    illegal: Any = "rounded_down" if rounded else "refused"
    spec = FlowSpec(**known.fields, size_multiple=multiple, illegal_sizes=illegal)

    def build(asked: Case) -> Any:
        made = fresh()
        made.set_progress_bar_config(disable=True)
        if known.as_list:
            show_rows(getattr(made, network))
        made = made.to(asked.device)
        warm_up(made, network, known.calling, (native.height, native.width))
        return made

    first = 0 if known.as_list else known.state
    return Subject(
        name=name,
        build=build,
        generate=lambda made, request: _generate(made, known.calling, request),
        velocity=Point(
            f"{network}.{STACKED}" if known.as_list else network,
            arguments={"x": first, "time": 1 if known.as_list else known.time, "null": None},
        ),
        decode=Point("vae.decode", arguments={"x": 0}),
        spec=spec,
        case=native,
        dtypes=(native.dtype,),
        annotations={"velocity.time": Int[Tensor, "N"]} if known.whole_times else {},
        **_edges(fresh, network, known.calling, spec),
    )


def _generate(pipe: Any, calling: Calling, request: Request) -> Tensor:
    returned = calling(
        pipe,
        request.prompts,
        size=(request.height, request.width),
        steps=request.num_steps,
        scale=request.guidance_scale,
        generator=request.generator,
    )
    return calling.images(returned)


def _dtype(pipe: Any, network: str) -> str:
    return str(next(getattr(pipe, network).parameters()).dtype).removeprefix("torch.")


def _side(pipe: Any) -> int:
    """Pixels of eight latents a side, or 64: the pipeline says how many pixels a latent has."""
    names = ("vae_scale_factor", "vae_scale_factor_spatial", "vae_spatial_compression_ratio")
    factors = [getattr(pipe, name) for name in names if getattr(pipe, name, None)]
    return max(64, 8 * int(factors[0] if factors else 8))


def _multiple(pipe: Any, calling: Calling, downsampling: int, case: Case) -> int:
    """The smallest multiple of the factor by which a size may grow and is still answered as asked."""
    size = (case.height, case.width)
    for factor in (1, 2, 4, 8):
        step = downsampling * factor
        if size[0] % step or size[1] % step:
            continue
        if _answers(pipe, calling, (size[0] + step, size[1])) and _answers(pipe, calling, (size[0], size[1] + step)):
            return step
    raise DeclarationError(
        f"{type(pipe).__name__}: no size near {size[0]}x{size[1]} is answered with pictures of that size; "
        "pass case=Case(height=..., width=...) with the native one"
    )


def _answers(pipe: Any, calling: Calling, size: tuple[int, int]) -> bool:
    return _answered(pipe, calling, size) == size


def _answered(pipe: Any, calling: Calling, size: tuple[int, int]) -> tuple[int, ...]:
    """The size of the picture that is asked for with a size; nothing where the pipeline refuses it."""
    generator = torch.Generator(getattr(pipe, "_execution_device", "cpu")).manual_seed(0)
    try:
        with torch.random.fork_rng(devices=[]):
            returned = calling(pipe, ["a"], size=size, steps=2, scale=1.0, generator=generator)
    except (ValueError, RuntimeError, AssertionError):
        return ()
    return tuple(calling.images(returned).shape[-2:])


def _edges(fresh: Callable[[], Any], network: str, calling: Calling, spec: FlowSpec) -> dict[str, Any]:
    """`time_edges` of a grid that is declared: the pipeline's own scheduler is asked."""
    if spec.grid != "declared":
        return {}
    return {"time_edges": Timetable(fresh, network, calling, spec.multiple)}
