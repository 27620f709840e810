"""One function through torch.compile: what it answers, and how often it had to be compiled."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fmcheck.errors import NotInformative
from fmcheck.record.points import Arguments

__all__ = ["Compiled", "Counted", "CountedCall", "forget_compiled"]

# From what is used in earnest to what works without a C++ compiler or Triton.
_BACKENDS = ("inductor", "aot_eager")
# Compilations for shapes that were seen, beyond those that Python numbers may cost.
_CLEAR = 3


def forget_compiled() -> None:
    """Let the compiler forget all that it has compiled; what the caller had compiled is compiled anew when used."""
    if "torch._dynamo" in sys.modules:
        torch._dynamo.reset()


class Compiled:
    """Makes every call of a function compiled, by the best of the backends that work here; `backend` says which."""

    def __init__(self, backends: tuple[str, ...] = _BACKENDS) -> None:
        self._waiting = list(backends)
        self._refusals: list[str] = []
        self._function: Callable[..., Any] | None = None
        self.backend = ""

    def __call__(self, original: Callable[..., Any], arguments: Arguments) -> Any:
        """
        Raises:
            NotInformative: no backend compiles the function.
        """
        if self._function is not None:
            return self._function(*arguments.args, **arguments.kwargs)
        while self._waiting:
            self.backend = self._waiting.pop(0)
            function = torch.compile(original, backend=self.backend)
            try:
                returned = function(*arguments.args, **arguments.kwargs)
            except Exception as error:
                self._refusals.append(f"{self.backend}: {_in_short(error)}")
                forget_compiled()
                continue
            self._function = function
            return returned
        raise NotInformative(f"torch.compile fails on the network ({'; '.join(self._refusals)})")


@dataclass(frozen=True)
class CountedCall:
    """One call of a counted function.

    Attributes:
        signature: of its arguments, without any value that a tensor or a number holds.
        numbers: how many Python numbers are among them; a compiler may take each for a constant at first.
        sizes: of the axes of its tensors.
        compiled: whether something was compiled for it.
        reason: the guard that failed, in the compiler's words; empty where none is known.
    """

    signature: tuple[Any, ...]
    numbers: int
    sizes: tuple[tuple[int, ...], ...]
    compiled: bool
    reason: str

    @property
    def kind(self) -> tuple[Any, ...]:
        """The signature without sizes: what arguments there are, and of what dtypes and ranks."""
        ranks = tuple(len(tensor) for tensor in self.sizes)
        return ranks, *(leaf[0] if isinstance(leaf, tuple) else leaf for leaf in self.signature)


class Counted:
    """Makes every call through torch.compile with a backend that compiles nothing and counts; `calls` are the counts.

    The values are those of the function itself. Once it is clear that a value makes it compile again and again, calls
    are made uncompiled and no longer counted.
    """

    def __init__(self) -> None:
        self.calls: list[CountedCall] = []
        self._graphs = self._again = 0
        self._function: Callable[..., Any] | None = None

    def _count(self, module: torch.fx.GraphModule, _: list[Tensor]) -> Callable[..., Any]:
        self._graphs += 1
        return module.forward

    def __call__(self, original: Callable[..., Any], arguments: Arguments) -> Any:
        if self._function is None:
            self._function = torch.compile(original, backend=self._count)
        leaves = list(_leaves([arguments.args, arguments.kwargs]))
        numbers = sum(_is_number(leaf) for leaf in leaves)
        if self._again > _CLEAR + 2 * numbers:
            return original(*arguments.args, **arguments.kwargs)
        before = self._graphs
        returned, reason = self._made(self._function, arguments)
        call = CountedCall(
            signature=tuple(_signature(leaf) for leaf in leaves),
            numbers=numbers,
            sizes=tuple(tuple(leaf.shape) for leaf in leaves if isinstance(leaf, Tensor)),
            compiled=self._graphs > before,
            reason=reason,
        )
        self._again += call.compiled and any(call.signature == known.signature for known in self.calls)
        self.calls.append(call)
        return returned

    def _made(self, function: Callable[..., Any], arguments: Arguments) -> tuple[Any, str]:
        """What the function returns; where it must be compiled again, the reason that the compiler gives."""
        import torch._dynamo.exc

        try:
            with torch._dynamo.config.patch(error_on_recompile=True):
                return function(*arguments.args, **arguments.kwargs), ""
        except torch._dynamo.exc.RecompileError as error:
            reason = _guard(str(error))
        return function(*arguments.args, **arguments.kwargs), reason


def _guard(text: str) -> str:
    """The first failed guard in the message of a recompilation, without the compiler's advice."""
    guards = [line.partition(": ")[2] for line in text.splitlines() if line.lstrip().startswith("- ")]
    return next(iter(guards), text).partition("  #")[0].strip()


def _in_short(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _is_number(leaf: Any) -> bool:
    return isinstance(leaf, int | float) and not isinstance(leaf, bool)


def _leaves(value: Any) -> Iterator[Any]:
    """What lists, tuples and mappings hold, in their order."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield key
            yield from _leaves(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _leaves(part)
    else:
        yield value


def _signature(leaf: Any) -> Any:
    """What a compiler may legitimately specialise on: everything but values that change from step to step."""
    if isinstance(leaf, Tensor):
        return leaf.dtype, leaf.device, tuple(leaf.shape), leaf.stride(), leaf.requires_grad, leaf.is_inference()
    if _is_number(leaf):
        return type(leaf)
    return leaf if isinstance(leaf, str | bool | None) else type(leaf)
