"""Planting a fault in a subject: wrappers around the recorder's own (or under them), off again after every run."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from threading import get_ident
from typing import Any

from fmcheck.case import Case
from fmcheck.errors import DeclarationError
from fmcheck.power.fault import Call, Fault, Memory
from fmcheck.record.attach import attach, put
from fmcheck.record.boundary import Boundary, boundaries, is_preview
from fmcheck.record.points import find_output, replace_output
from fmcheck.subject import Point, Request, Subject

__all__ = ["Planting", "planted"]


class Planting:
    """One fault in one subject. `subject` is the faulty one: every run of a session meets the fault.

    A fault on the side of the loop is wrapped around the recorder's wrappers while the user's function runs, so that
    the recorder sees what the network was really handed and what it really returned. One on the side of the network
    hangs under them, from `build` to :meth:`take_off`.
    """

    def __init__(self, subject: Subject, fault: Fault) -> None:
        self._clean, self._fault = subject, fault
        self.memory = Memory()
        self._now: Call | None = None
        self._inside: set[tuple[int, str]] = set()
        self._under = ExitStack()
        # Two models may hang on one module-level function, which then has the fault once.
        self._hung: set[Any] = set()
        changes: dict[str, Any] = {"build": self._build} if fault.side == "network" else {}
        drive = subject.generate if fault.kind == "generate" else subject.loss
        if drive is not None:
            changes[fault.kind] = self._driven(drive)
        self.subject = subject.but(**changes)

    def take_off(self) -> None:
        """Take off what `build` has hung under the recorder."""
        self._under.close()
        self._hung.clear()

    def _build(self, case: Case) -> Any:
        model = self._clean.build(case)
        for boundary in self._wanted(model):
            if boundary.place.identity() not in self._hung:
                self._hung.add(boundary.place.identity())
                self._under.callback(put(boundary.place, self._around(boundary)))
        return model

    def _wanted(self, model: Any) -> list[Boundary]:
        """The places of the roles that the fault changes or watches."""
        roles = {self._fault.role, *self._fault.watches}
        points: Mapping[str, Point] = self._clean.points
        if not roles & points.keys():
            return []
        return [b for b in boundaries(model, points) if roles & {role for role, _ in b.roles}]

    def _driven(self, drive: Callable[[Any, Request], Any]) -> Callable[[Any, Request], Any]:
        def driven(model: Any, request: Request) -> Any:
            self.memory.run.clear()
            self.memory.outputs.clear()
            self._now = Call(self._clean, model, request, self.memory)
            outside = self._wanted(model) if self._fault.side == "loop" else []
            try:
                with attach([(boundary.place, self._around(boundary)) for boundary in outside]):
                    returned = drive(model, self._asked(request))
                    # What is yet to come must come while the fault is there.
                    returned = _last(returned) if is_preview(returned) else returned
                return self._returned(returned)
            finally:
                self._now = None

        return driven

    def _asked(self, request: Request) -> Request:
        if self._fault.role != "request":
            return request
        changed: Request = self._fault.act(request)
        self.memory.touched += changed is not request
        return changed

    def _returned(self, returned: Any) -> Any:
        found, call = find_output(returned, None), self._now
        if self._fault.role != "result" or call is None:
            return returned
        if found is None:
            call.refuse(f"the subject's {self._fault.kind} returns no tensor")
            return returned
        changed = self._fault.act(found, call)
        if changed is found:
            return returned
        call.did()
        return replace_output(returned, None, changed)

    def _around(self, boundary: Boundary) -> Callable[..., Any]:
        def around(original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            arguments = boundary.arguments(args, kwargs)
            role, point = boundary.role_of(arguments) or ("", None)
            inside = get_ident(), role
            # What a point calls of itself is part of its outermost call, as it is for the recorder.
            if self._now is None or point is None or inside in self._inside:
                return original(*args, **kwargs)
            self._inside.add(inside)
            try:
                call = self._now.at(role, point, original, arguments)
                returned = self._fault.act(call) if role == self._fault.role else call.go()
            finally:
                self._inside.discard(inside)
            output = find_output(returned, point.output)
            if output is not None and role in self._fault.watches:
                self.memory.outputs[role] = output.detach()
            return returned

        return around


def _last(previews: Any) -> Any:
    last = None
    for value in previews:
        last = value
    return last


@contextmanager
def planted(subject: Subject, fault: Fault) -> Iterator[Planting]:
    """The fault is in `planting.subject` while the context lasts; the subject itself stays as it is.

    Raises:
        DeclarationError: an observation point does not exist on the model (when a run is made).
    """
    if fault.kind == "loss" and subject.loss is None:
        raise DeclarationError(f"fault {fault.name!r}: subject {subject.name!r} declares no loss to plant it in")
    planting = Planting(subject, fault)
    try:
        yield planting
    finally:
        planting.take_off()
