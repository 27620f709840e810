"""One run of a user's sampler with everything watched: which callable was given what, inside which other, in order."""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from fmcheck.errors import FmcheckError
from fmcheck.record.attach import attach, find
from fmcheck.record.model_state import ModelState
from fmcheck.record.points import Arguments, Parameters, find_output, stacked
from fmcheck.record.watch import global_random_state, restore_settings, settings

__all__ = ["Seen", "Watched", "tensors_in", "watch"]

# Copies of larger tensors are not kept: nothing here reads them, and networks have many.
_LARGEST = 2**24


@dataclass
class Seen:
    """One call: `inputs` by parameter name and `positions` of those passed, copies of what was handed over.

    `start` and `end` are its place among all events, so that one call lies inside another where its span does.
    """

    path: str
    module: bool
    inputs: dict[str, Any]
    start: int
    end: int = 0
    returned: Any = None
    output: Tensor | None = None

    def inside(self, other: "Seen") -> bool:
        return other.start < self.start and self.end < other.end

    def output_like(self, shape: torch.Size) -> Tensor | None:
        """The first tensor of that shape in what was returned."""
        found = (tensor for _, tensor in tensors_in(self.returned) if tensor.shape == shape)
        return next(found, None)


@dataclass
class Watched:
    """One run: what the entry returned, and every call inside."""

    returned: Any
    calls: list[Seen] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def of(self, path: str) -> list[Seen]:
        return [call for call in self.calls if call.path == path]


def watch(model: Any, paths: list[str], run: Callable[[], Any]) -> Watched:
    """Run with a watcher around every path; model, process and random state are left as they were.

    Raises:
        Exception: whatever the run raises.
    """
    watched = Watched(None)
    clock = [0]
    baseline, before = ModelState(model), settings()
    try:
        with global_random_state("cpu", disturb=0), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            with attach(list(_wrappers(model, paths, watched, clock))):
                watched.returned = run()
        watched.warnings = [str(w.message) for w in caught if issubclass(w.category, UserWarning)]
    finally:
        restore_settings(before)
        if baseline.changes(thorough=True):
            baseline.restore()
    watched.calls.sort(key=lambda call: call.start)
    return watched


def _wrappers(model: Any, paths: list[str], watched: Watched, clock: list[int]) -> Iterator[tuple[Any, Any]]:
    known = set()
    for path in paths:
        try:
            place = find(model, path)
        except (FmcheckError, ModuleNotFoundError):
            continue
        if place.identity() in known:
            continue
        known.add(place.identity())
        whole = place.module if place.key == "forward" else None
        parameters = Parameters(place.value, unbound=place.unbound, module=whole)
        yield place, _around(path, isinstance(whole, nn.Module), parameters, watched, clock)


def _around(path: str, module: bool, parameters: Parameters, watched: Watched, clock: list[int]) -> Any:
    def around(original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        clock[0] += 1
        by_name = Arguments(parameters, args, kwargs).by_name()
        call = Seen(path, module, {name: _copy(value) for name, value in by_name.items()}, clock[0])
        returned = original(*args, **kwargs)
        clock[0] += 1
        call.end, call.returned = clock[0], _copy(returned)
        call.output = find_output(call.returned, None)
        watched.calls.append(call)
        return returned

    return around


def _copy(value: Any, depth: int = 0) -> Any:
    """Tensors as detached copies, containers around them kept; rows in a list as one tensor."""
    if isinstance(value, Tensor):
        return value.detach().clone() if value.numel() <= _LARGEST and not value.is_meta else None
    if depth < 3 and type(value) in (list, tuple):
        # A list of rows is one tensor; a tuple holds results of several kinds, or one with `return_dict=False`.
        rows = stacked(value) if isinstance(value, list) else value
        return _copy(rows) if isinstance(rows, Tensor) else type(value)(_copy(v, depth + 1) for v in value)
    if depth < 3 and isinstance(value, dict):
        return {key: _copy(v, depth + 1) for key, v in value.items()}
    if (depth < 3 and isinstance(value, tuple)) or (hasattr(value, "__dict__") and _is_result(value)):
        entries = value._asdict() if hasattr(value, "_asdict") else vars(value) if hasattr(value, "__dict__") else {}
        return {key: _copy(v, depth + 1) for key, v in entries.items()}
    return value


def _is_result(value: Any) -> bool:
    """Whether an object is a bag of tensors that a call returned, and no part of the model."""
    return (
        not isinstance(value, nn.Module)
        and not callable(value)
        and any(isinstance(v, Tensor) for v in vars(value).values())
    )


def tensors_in(value: Any, accessor: str = "", depth: int = 0) -> Iterator[tuple[str, Tensor]]:
    """Every tensor in a returned value with the Python that reaches it: `.images`, `["samples"]`, `[0]`."""
    if isinstance(value, Tensor):
        yield accessor, value
    elif depth > 2:
        return
    elif isinstance(value, dict):
        for key, entry in value.items():
            yield from tensors_in(entry, f"{accessor}[{key!r}]".replace("'", '"'), depth + 1)
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        for name in value._fields:
            yield from tensors_in(getattr(value, name), f"{accessor}.{name}", depth + 1)
    elif isinstance(value, list | tuple):
        rows = stacked(value) if isinstance(value, list) else value
        if isinstance(rows, Tensor):
            yield accessor, rows
            return
        for index, entry in enumerate(value):
            yield from tensors_in(entry, f"{accessor}[{index}]", depth + 1)
    elif hasattr(value, "__dict__") and not isinstance(value, nn.Module):
        for name, entry in vars(value).items():
            if not name.startswith("_"):
                yield from tensors_in(entry, f"{accessor}.{name}", depth + 1)
