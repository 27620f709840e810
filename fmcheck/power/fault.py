"""What a fault is, what it sees of the call it is planted in, and the list of all faults."""

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from fmcheck.errors import DeclarationError, InternalError, did_you_mean
from fmcheck.record.boundary import inputs_of
from fmcheck.record.points import Arguments, find_output, replace_output
from fmcheck.subject import ROLES, Point, Request, Subject

__all__ = [
    "Call",
    "Fault",
    "Memory",
    "all_faults",
    "around",
    "on_input",
    "on_output",
    "on_request",
    "on_result",
    "per_channel",
]

Kind = Literal["generate", "loss"]
Side = Literal["loop", "network"]


@dataclass
class Memory:
    """What a fault keeps: `run` is empty at the beginning of every run, `ever` lasts as long as it is planted.

    `outputs` are the last outputs by role. `touched` counts what it changed, `refused` says why it could not, and
    `helps` what the subject would have to declare for it.
    """

    run: dict[str, Any] = field(default_factory=dict)
    ever: dict[str, Any] = field(default_factory=dict)
    outputs: dict[str, Tensor] = field(default_factory=dict)
    touched: int = 0
    refused: str = ""
    helps: tuple[str, ...] = ()


class Call:
    """One call of an observation point, as the fault that sits in its way sees it; also the end of a run.

    At the end of a run there is no call: only the run's own attributes are there.
    """

    _role: str
    _point: Point
    _original: Callable[..., Any]
    _arguments: Arguments

    def __init__(self, subject: Subject, model: Any, request: Request, memory: Memory) -> None:
        self.subject, self.model, self.request, self.memory = subject, model, request, memory

    def at(self, role: str, point: Point, original: Callable[..., Any], arguments: Arguments) -> "Call":
        """The same run, at one call."""
        # A copy: one observed call may be made within another one.
        mine = copy.copy(self)
        mine._role, mine._point, mine._original, mine._arguments = role, point, original, arguments
        return mine

    @property
    def batch(self) -> int:
        """Prompts of the run."""
        return self.request.case.batch

    def get(self, name: str) -> Any:
        """An input by its name in the role; None when it was not passed."""
        return inputs_of(self._role, self._point, self._arguments).get(name)

    def set(self, name: str, value: Any) -> None:
        """Pass another value for an input."""
        if not _same(self.get(name), value):
            self.did()
        selector = self._point.arguments.get(name) if ROLES[self._role] else name
        self._arguments.set(name if selector is None else selector, value)

    def go(self) -> Any:
        """Make the call; returns whatever it returns."""
        return self._original(*self._arguments.args, **self._arguments.kwargs)

    def tensor(self, returned: Any) -> Tensor | None:
        """The tensor in what a call returned."""
        return find_output(returned, self._point.output)

    def put(self, returned: Any, tensor: Tensor) -> Any:
        """What a call returned, with another tensor in it."""
        if _same(self.tensor(returned), tensor):
            return returned
        self.did()
        return replace_output(returned, self._point.output, tensor)

    def did(self) -> None:
        """Note that something was changed."""
        self.memory.touched += 1

    def refuse(self, reason: str, *helps: str) -> None:
        """Note that this call cannot have the fault, and why; `helps` are needs that would make it possible."""
        self.memory.refused = self.memory.refused or reason
        self.memory.helps = self.memory.helps or helps


Around = Callable[[Call], Any]


@dataclass(frozen=True)
class Fault:
    """A defect of the user's own pipeline, planted between its observation points.

    Attributes:
        name: names the defect.
        role: the observation point at whose calls it is planted; `request` is what the subject's function is handed,
            `result` what it returns.
        act: makes one call (`role`), or changes the request, or the tensor that came out.
        needs: points, and arguments of points (`velocity.null`), that the subject must declare.
        rules: codes of the rules that notice it where everything is observed, the nearest first.
        kind: whether sampling or training has the defect.
        side: `loop` lies between the recorder and the user's loop, `network` between the recorder and what it calls.
        quiet: whether it may change no number of the result, as what is left behind in the process does.
        watches: roles whose last output it uses.
    """

    name: str
    role: str
    act: Callable[..., Any]
    needs: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    kind: Kind = "generate"
    side: Side = "loop"
    quiet: bool = False
    watches: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        return next(iter((self.act.__doc__ or "").splitlines()), "")


_FAULTS: dict[str, Fault] = {}

Register = Callable[[Callable[..., Any]], Callable[..., Any]]


def _add(name: str, fault: Fault, doc: str | None) -> None:
    if name in _FAULTS:
        raise InternalError(f"fault {name} is registered twice")
    if not doc:
        raise InternalError(f"fault {name} has no docstring")
    fault.act.__doc__ = doc
    _FAULTS[name] = fault


def around(role: str, *, rules: Iterable[str], needs: Iterable[str] = (), **rest: Any) -> Register:
    """Register a function that makes the calls of a role in its own way: it gets the :class:`Call`.

    Raises:
        InternalError: a name that is taken, or no docstring.
    """

    def register(act: Callable[..., Any]) -> Callable[..., Any]:
        name = act.__name__
        wanted = tuple(dict.fromkeys([*([role] if role in ROLES else []), *needs, *rest.get("watches", ())]))
        if rest.get("kind") == "loss":
            wanted = ("loss", *wanted)
        _add(name, Fault(name, role, act, wanted, tuple(rules), **rest), act.__doc__)
        return act

    return register


def on_output(role: str, *, rules: Iterable[str], **rest: Any) -> Register:
    """Register a function from the output of a role (and the :class:`Call`) to another one."""

    def register(change: Callable[[Tensor, Call], Tensor]) -> Callable[..., Any]:
        def act(call: Call) -> Any:
            returned = call.go()
            tensor = call.tensor(returned)
            if tensor is None or not tensor.is_floating_point():
                call.refuse(f"{role} returned no tensor of numbers (see Point.output)")
                return returned
            return call.put(returned, change(tensor, call))

        act.__name__, act.__doc__ = change.__name__, change.__doc__
        around(role, rules=rules, **rest)(act)
        return change

    return register


def on_input(role: str, name: str, *, rules: Iterable[str], **rest: Any) -> Register:
    """Register a function from one input of a role (and the :class:`Call`) to another one."""

    def register(change: Callable[[Tensor, Call], Tensor]) -> Callable[..., Any]:
        def act(call: Call) -> Any:
            value = call.get(name)
            if isinstance(value, Tensor):
                call.set(name, change(value, call))
            else:
                call.refuse(f"no tensor is passed as {role}.{name}", f"{role}.{name}")
            return call.go()

        act.__name__, act.__doc__ = change.__name__, change.__doc__
        around(role, rules=rules, needs=(f"{role}.{name}",), **rest)(act)
        return change

    return register


def on_request(*, rules: Iterable[str], **rest: Any) -> Register:
    """Register a function from the :class:`Request` to another one."""
    return around("request", rules=rules, **rest)


def on_result(*, rules: Iterable[str], **rest: Any) -> Register:
    """Register a function from what comes out (and the :class:`Call`) to something else."""
    return around("result", rules=rules, **rest)


def all_faults(names: Iterable[str] = ()) -> list[Fault]:
    """The faults with these names, or all of them.

    Raises:
        DeclarationError: a name that no fault has; names the nearest.
    """
    names = list(names)
    for name in names:
        if name not in _FAULTS:
            hint = did_you_mean(name, _FAULTS)
            raise DeclarationError(f"no fault {name!r}{hint}; `fmcheck power --list` lists them")
    return [_FAULTS[name] for name in dict.fromkeys(names)] if names else list(_FAULTS.values())


def per_channel(value: float | Iterable[float], x: Tensor) -> Tensor:
    """A scale or shift of latents, which may have one number a channel, to broadcast against `[B, C, ...]`."""
    numbers = torch.as_tensor(value, dtype=x.dtype, device=x.device)
    return numbers.reshape(-1, *([1] * (x.dim() - 2))) if numbers.dim() else numbers


def _same(before: Any, after: Any) -> bool:
    # NaN equals nothing, not even itself.
    if before is after or not (isinstance(before, Tensor) and isinstance(after, Tensor)):
        return before is after
    alike = before.shape == after.shape and before.dtype == after.dtype
    return alike and bool(torch.equal(before, after))
