"""One observed place, as the recorder and the guard both see it: its role, its inputs, what is wrong with them."""

import types
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager
from functools import cached_property, partial
from typing import Any

from torch import Tensor, nn

from fmcheck.errors import DeclarationError, did_you_mean
from fmcheck.record.attach import Place, find
from fmcheck.record.model_state import walk
from fmcheck.record.points import Arguments, Parameters, stacked
from fmcheck.subject import ENTRIES, ROLES, Point
from fmcheck.tensors import Mismatch, Scope

__all__ = ["Boundary", "boundaries", "inputs_of", "is_preview", "iterate", "mismatches"]

_TRAIN_SENSITIVE = (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._BatchNorm)


class Boundary:
    """A place in the model and the roles observed there; a dispatcher such as `ae(x, fn=…)` has several."""

    def __init__(self, place: Place, roles: list[tuple[str, Point]]) -> None:
        self.place = place
        # The most particular first: a role without `when` takes what the others leave.
        self.roles = sorted(roles, key=lambda entry: -len(entry[1].when))
        whole = place.module if place.key == "forward" else None
        self._parameters = Parameters(place.value, unbound=place.unbound, module=whole)
        for role, point in roles:
            self._check_names(role, point)

    def _check_names(self, role: str, point: Point) -> None:
        names = [name for name in (*point.arguments.values(), *point.when) if isinstance(name, str)]
        # An entry's arguments may name parameters that only some pipelines have. And a signature is slow to read.
        if not names or role in ENTRIES or self._parameters.open_ended:
            return
        known = [*self._parameters.positional, *self._parameters.keywords]
        for name in names:
            if name not in known:
                raise DeclarationError(
                    f"observation point {point.path!r} ({role}): it has no parameter {name!r}"
                    f"{did_you_mean(name, known)}; it takes {', '.join(dict.fromkeys(known))}"
                )

    def arguments(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Arguments:
        return Arguments(self._parameters, args, kwargs)

    def role_of(self, arguments: Arguments) -> tuple[str, Point] | None:
        """The role that a call plays; None when no role's `when` fits it."""
        return next((entry for entry in self.roles if arguments.match(entry[1].when)), None)

    @cached_property
    def _sensitive(self) -> list[nn.Module]:
        modules = walk(self.place.module) if self.place.module is not None else ()
        return [m for _, m in modules if isinstance(m, _TRAIN_SENSITIVE) and getattr(m, "p", 1.0) > 0]

    @property
    def acts_in_training(self) -> bool:
        """Whether a part of it that computes something else in train mode is in that mode.

        A child may be in it although its parent is not: `eval()` came before the layer was added.
        """
        return any(m.training for m in self._sensitive)


def inputs_of(role: str, point: Point, arguments: Arguments) -> dict[str, Any]:
    """The values of a call by the names of its role; by parameter name where the role has none of its own."""
    if not ROLES[role]:
        return arguments.by_name()
    return {name: stacked(arguments.get(selector)) for name, selector in point.arguments.items()}


def boundaries(model: Any, points: Mapping[str, Point]) -> list[Boundary]:
    """One boundary a place, whatever the number of roles and paths that lead to it.

    Raises:
        DeclarationError: a path does not exist on the model, or two roles at one place cannot be told apart.
    """
    groups: dict[Any, tuple[Place, list[tuple[str, Point]]]] = {}
    for role, point in points.items():
        place = find(model, point.path)
        _, roles = groups.setdefault(place.identity(), (place, []))
        for other, known in roles:
            if dict(known.when) == dict(point.when):
                raise DeclarationError(
                    f"observation points {other} ({known.path!r}) and {role} ({point.path!r}) are one and the same "
                    "callable; tell their calls apart with Point(when={argument: value})"
                )
        roles.append((role, point))
    return [Boundary(place, roles) for place, roles in groups.values()]


def mismatches(
    scope: Scope, annotations: Mapping[str, Any], role: str, values: Mapping[str, Any], origin: str = ""
) -> Iterator[tuple[str, Mismatch]]:
    """Name and mismatch of every value that is not what its annotation says; the others bind their axes.

    An argument that was not passed (None) is not judged; a call that returns no tensor is.
    """
    for name, value in values.items():
        tensor = f"{role}.{name}"
        if tensor in annotations and (value is not None or name == "output"):
            rank = value.dim() if isinstance(value, Tensor) else None
            annotation = annotations.get(f"{tensor}@{rank}", annotations[tensor])
            mismatch = scope.check(tensor, value, annotation, f"{tensor} of {origin}")
            if mismatch:
                yield name, mismatch


def is_preview(returned: Any) -> bool:
    """Whether a call returned a generator, as pipelines do that yield previews: its work is yet to come."""
    return isinstance(returned, types.GeneratorType)


def iterate(
    source: Generator[Any, Any, Any],
    note: Callable[[Any], Any],
    during: Callable[[], AbstractContextManager[Any]],
) -> Generator[Any, Any, Any]:
    """Pass on what a generator yields, through `note`; `during` is entered whenever the generator itself runs."""
    advance = partial(next, source)
    while True:
        with during():
            try:
                value = advance()
            except StopIteration as stop:
                return stop.value
            value = note(value)
        try:
            sent = yield value
        except GeneratorExit:
            source.close()
            raise
        except BaseException as error:
            advance = partial(source.throw, error)
        else:
            advance = partial(source.send, sent)
