"""One small call of a pipeline, written down: what its network, its scheduler and its decoder were given."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fmcheck.errors import DeclarationError
from fmcheck.record.attach import attach, find
from fmcheck.record.points import Arguments, Parameters, find_output

__all__ = ["NetworkCall", "Observation", "Step", "listening", "network_name", "stacked"]


@dataclass
class NetworkCall:
    """One call of the network: arguments by name and what it returned, lists of rows stacked (`lists` names them)."""

    inputs: Mapping[str, Any]
    output: Tensor
    lists: frozenset[str]


@dataclass
class Step:
    """One step of the scheduler, and the network calls that led to it. `drew` says that it used random numbers."""

    calls: list[NetworkCall]
    sample: Tensor
    model_output: Tensor
    result: Tensor
    drew: bool


@dataclass
class Observation:
    """One call of a pipeline: `timetables` holds what `set_timesteps` was asked, by name."""

    steps: list[Step] = field(default_factory=list)
    timetables: list[dict[str, Any]] = field(default_factory=list)
    decoded: Tensor | None = None
    sigmas: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.float64))
    pending: list[NetworkCall] = field(default_factory=list)


def network_name(pipe: Any) -> str:
    """Name of the component that is the velocity network.

    Raises:
        DeclarationError: there is none, or there are two that take turns.
    """
    parts = getattr(pipe, "components", {})
    found = [name for name in ("transformer", "unet") if isinstance(parts.get(name), torch.nn.Module)]
    if len(found) != 1 or "scheduler" not in parts or getattr(parts.get("vae"), "decode", None) is None:
        raise DeclarationError(
            f"{type(pipe).__name__}: expected a diffusers pipeline with one transformer or unet, a scheduler and a "
            f"vae; found {', '.join(sorted(parts)) or 'no components'}"
        )
    if isinstance(parts.get(f"{found[0]}_2"), torch.nn.Module):
        raise DeclarationError(
            f"{type(pipe).__name__}: two networks take turns ({found[0]}, {found[0]}_2); one can be declared"
        )
    return found[0]


def stacked(value: Any) -> Tensor | None:
    """A tensor as it is; a list of tensors of one shape as one tensor with rows; None for anything else."""
    if isinstance(value, Tensor):
        return value
    rows = value if isinstance(value, list) else []
    alike = bool(rows) and all(isinstance(row, Tensor) and row.shape == rows[0].shape for row in rows)
    return torch.stack(rows) if alike else None


@contextmanager
def listening(pipe: Any, network: str) -> Iterator[Observation]:
    """Notes every call of the network, the scheduler and the decoder while the context lasts."""
    seen = Observation()
    places = {name: find(pipe, name) for name in (network, "scheduler.step", "scheduler.set_timesteps", "vae.decode")}
    parameters = {name: Parameters(place.value, module=place.module) for name, place in places.items()}

    def on_network(original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        inputs = Arguments(parameters[network], args, kwargs).by_name()
        lists = frozenset(name for name, value in inputs.items() if isinstance(value, list))
        inputs = {name: _kept(value) for name, value in inputs.items()}
        returned = original(*args, **kwargs)
        output = find_output(returned, None)
        if output is None and isinstance(returned, tuple | list):
            output = stacked(returned[0])
        if output is not None:
            seen.pending.append(NetworkCall(inputs, output.detach().clone(), lists))
        return returned

    def on_step(original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        given = Arguments(parameters["scheduler.step"], args, kwargs).by_name()
        generator = given.get("generator")
        before = _random_states(generator)
        model_output, sample = given["model_output"].clone(), given["sample"].clone()
        returned = original(*args, **kwargs)
        result = find_output(returned, None)
        if result is not None:
            drew = any(not torch.equal(a, b) for a, b in zip(before, _random_states(generator), strict=True))
            seen.steps.append(Step(seen.pending, sample, model_output, result.detach().clone(), drew))
        seen.pending = []
        seen.sigmas = torch.as_tensor(pipe.scheduler.sigmas).double().cpu()
        return returned

    def on_timetable(original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        seen.timetables.append(Arguments(parameters["scheduler.set_timesteps"], args, kwargs).by_name())
        return original(*args, **kwargs)

    def on_decode(original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        given = next(iter(Arguments(parameters["vae.decode"], args, kwargs).by_name().values()), None)
        seen.decoded = given.detach().clone() if isinstance(given, Tensor) else None
        return original(*args, **kwargs)

    around = {network: on_network, "scheduler.step": on_step, "scheduler.set_timesteps": on_timetable}
    around["vae.decode"] = on_decode
    with attach([(places[name], wrapper) for name, wrapper in around.items()]):
        yield seen


def _random_states(generator: Any) -> list[Tensor]:
    """The states of the global generator and of the one handed over, if any."""
    own = [generator.get_state()] if isinstance(generator, torch.Generator) else []
    return [torch.get_rng_state(), *own]


def _kept(value: Any) -> Any:
    tensor = stacked(value)
    return value if tensor is None else tensor.detach().clone()
