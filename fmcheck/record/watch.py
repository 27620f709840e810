"""Watching what a run may not touch: random generators, the registered parameters, process-wide settings."""

import ctypes
import os
import random
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)
from torch.nn.parameter import is_lazy

__all__ = [
    "Births",
    "RandomWatch",
    "device_generators",
    "global_random_state",
    "restore_settings",
    "settings",
]


class RandomWatch:
    """Which generators have moved since the last look: torch's own, and those of Python and NumPy where asked for.

    A look costs a few microseconds a generator.
    """

    def __init__(self, generators: Mapping[str, torch.Generator], *, process: bool = False) -> None:
        self._generators = dict(generators)
        self._states = {name: _state_of(g) for name, g in self._generators.items()}
        self._marks = _process_marks() if process else {}

    def moved(self) -> list[str]:
        names = []
        for name, generator in self._generators.items():
            state = _state_of(generator)
            if state != self._states[name]:
                self._states[name] = state
                names.append(name)
        if self._marks:
            now = _process_marks()
            names += [name for name, mark in now.items() if mark != self._marks.get(name)]
            self._marks = now
        return names


def _state_of(generator: torch.Generator) -> bytes:
    # Kept on the CPU for generators of every device.
    return generator.get_state().numpy().tobytes()


def _process_marks() -> dict[str, Any]:
    """Values that change when Python's or NumPy's global generator is drawn from."""
    # Of Python's 624 words, the place in them and two: a comparison of all takes as long as getting them.
    _, words, gauss = random.getstate()
    return {"python": (words[1], words[2], words[-1], gauss), "numpy": _numpy_mark(_numpy_random())}


def _numpy_random() -> Any:
    return sys.modules["numpy"].random if "numpy" in sys.modules else None


def _numpy_mark(numpy_random: Any) -> Any:
    """NumPy's global state as bytes; None without NumPy."""
    if numpy_random is None:
        return None
    generator = numpy_random.mtrand._rand._bit_generator
    if type(generator).__name__ == "MT19937":
        # The struct itself: 624 words and a position. Asking for the state as a dict takes a hundred times as long.
        return ctypes.string_at(generator.ctypes.state_address, 625 * 4)
    return repr(generator.state)


def device_generators(device: str) -> dict[str, torch.Generator]:
    """The global generators that code on `device` could draw from."""
    generators = {"torch": torch.default_generator}
    if torch.device(device).type == "cuda" and torch.cuda.is_available():
        torch.cuda.init()  # type: ignore[no-untyped-call]
        index = torch.device(device).index or 0
        generators[f"cuda:{index}"] = torch.cuda.default_generators[index]
    return generators


@contextmanager
def global_random_state(device: str, *, disturb: int | None = None) -> Iterator[Callable[[], list[str]]]:
    """Yields a function that names the global generators that have moved; restores all of them at the end.

    Args:
        device: whose device generator is watched along with torch, Python and NumPy.
        disturb: seed all of them with this number first, to see whether the result depends on them.
    """
    numpy_random = _numpy_random()
    python_before = random.getstate()
    numpy_before = _numpy_state(numpy_random) if numpy_random else None
    generators = device_generators(device)
    torch_before = {name: g.get_state() for name, g in generators.items()}
    try:
        if disturb is not None:
            random.seed(disturb)
            for generator in generators.values():
                generator.manual_seed(disturb)
            if numpy_random:
                numpy_random.seed(disturb % 2**32)
        yield RandomWatch(generators, process=True).moved
    finally:
        with ExitStack() as stack:
            stack.callback(random.setstate, python_before)
            if numpy_before is not None:
                stack.callback(_set_numpy_state, numpy_random, *numpy_before)
            for name, generator in generators.items():
                stack.callback(generator.set_state, torch_before[name])


def _numpy_state(numpy_random: Any) -> tuple[Any, Any]:
    return numpy_random.mtrand._rand._bit_generator, numpy_random.get_state(legacy=False)


def _set_numpy_state(numpy_random: Any, generator: Any, state: Any) -> None:
    if numpy_random.mtrand._rand._bit_generator is not generator:
        numpy_random.set_bit_generator(generator)
    numpy_random.set_state(state)


class Births:
    """Parameters and buffers that any module registers while the context lasts, whether the model keeps them or not."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._handles: list[Any] = []

    def _note(self, module: nn.Module, name: str, tensor: Tensor | None) -> None:
        # A buffer that is given a new value (a cache) is not a new one; a parameter that is replaced is.
        if tensor is not None and module._buffers.get(name) is None:
            shape = "without a shape yet" if is_lazy(tensor) else list(tensor.shape)
            self.names.append(f"{type(module).__name__}.{name} {shape}")

    def __enter__(self) -> "Births":
        self._handles = [
            register_module_parameter_registration_hook(self._note),
            register_module_buffer_registration_hook(self._note),
        ]
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()


def settings() -> dict[str, Any]:
    """Process-wide settings that a library call must leave as it found them."""
    return {name: read() for name, (read, _) in _SETTINGS.items()}


def restore_settings(before: Mapping[str, Any]) -> list[str]:
    """Put process-wide settings back that a run has changed; returns their names."""
    changed = [name for name, (read, _) in _SETTINGS.items() if read() != before[name]]
    with ExitStack() as stack:
        for name in changed:
            stack.callback(_SETTINGS[name][1], before[name])
    return changed


def _set_environment(before: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(before)


def _working_directory() -> str | None:
    try:
        return os.getcwd()
    except FileNotFoundError:
        return None


def _set_default_device(before: torch.device) -> None:
    # None and not cpu: an explicit default device costs something at every call of torch.
    torch.set_default_device(None if before.type == "cpu" else before)


_SETTINGS: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "grad mode": (torch.is_grad_enabled, torch.set_grad_enabled),
    "default dtype": (torch.get_default_dtype, torch.set_default_dtype),
    "default device": (torch.get_default_device, _set_default_device),
    "deterministic algorithms": (torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode),
    "threads": (torch.get_num_threads, torch.set_num_threads),
    "autocast": (lambda: torch.is_autocast_enabled("cpu"), lambda on: torch.set_autocast_enabled("cpu", on)),
    "cuda autocast": (lambda: torch.is_autocast_enabled("cuda"), lambda on: torch.set_autocast_enabled("cuda", on)),
    "float32 matmul precision": (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    "cudnn benchmark": (
        lambda: torch.backends.cudnn.benchmark,
        lambda on: setattr(torch.backends.cudnn, "benchmark", on),
    ),
    "cudnn deterministic": (
        lambda: torch.backends.cudnn.deterministic,
        lambda on: setattr(torch.backends.cudnn, "deterministic", on),
    ),
    "working directory": (_working_directory, lambda path: os.chdir(path) if path and os.path.isdir(path) else None),
    "environment": (lambda: dict(os.environ), _set_environment),
}
