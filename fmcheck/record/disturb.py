"""Deliberate disturbances: what the recorder can change at an observation point, and faults it can raise there."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from fmcheck.record.points import Arguments

__all__ = [
    "Disturbance",
    "InjectedFault",
    "answer_instead",
    "call_otherwise",
    "change_argument",
    "change_input",
    "change_output",
    "raise_in",
]


class InjectedFault(RuntimeError):
    """Raised by fmcheck inside an observation point to see whether the user's loop lets it through."""


@dataclass(frozen=True)
class Disturbance:
    """A change at one role. Equal names mean equal changes, so that equal runs can be shared.

    Attributes:
        name: what is changed, with its parameters.
        role: the observation point.
        inputs: gets the call's inputs by role name (see `ROLES`), or by parameter name for `generate` and
            `loss`, and returns the ones to replace.
        output: gets the inputs and the output tensor, and returns another tensor.
        replaces: whether `output` needs nothing of the call but its kind, so that only the first one need be made.
        around: makes the call itself, from the original function and the arguments.
        fault: message of the :class:`InjectedFault` to raise instead of calling.
    """

    name: str
    role: str
    inputs: Callable[[dict[str, Any]], dict[str, Any]] | None = field(default=None, compare=False)
    output: Callable[[dict[str, Any], Tensor], Tensor] | None = field(default=None, compare=False)
    replaces: bool = False
    around: Callable[[Callable[..., Any], Arguments], Any] | None = field(default=None, compare=False)
    fault: str | None = None


def raise_in(role: str) -> Disturbance:
    """Raise :class:`InjectedFault` at the first call of a role."""
    return Disturbance(f"raise in {role}", role, fault=f"fmcheck: deliberate fault in {role}")


def change_output(name: str, role: str, change: Callable[[dict[str, Any], Tensor], Tensor]) -> Disturbance:
    return Disturbance(name, role, output=change)


def answer_instead(name: str, role: str, answer: Callable[[dict[str, Any], Tensor], Tensor]) -> Disturbance:
    """Put something else in the place of a function: it gets the inputs, and an output for its dtype and device."""
    return Disturbance(name, role, output=answer, replaces=True)


def call_otherwise(name: str, role: str, around: Callable[[Callable[..., Any], Arguments], Any]) -> Disturbance:
    """Make the calls of a role in another way, such as compiled, or in parts of the batch."""
    return Disturbance(name, role, around=around)


def change_input(name: str, role: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Disturbance:
    return Disturbance(name, role, inputs=change)


def change_argument(name: str, argument: str, value: Any) -> Disturbance:
    """Pass another value for one argument of the public `generate`."""
    return Disturbance(name, "generate", inputs=lambda _: {argument: value})
