"""The recorder: typed wrappers around every observation point, and a trace of what passed through them.

It never changes what the model computes (unless a disturbance asks it to), draws nothing, and takes everything
off again whatever happened.
"""

import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from copy import copy
from functools import partial
from threading import get_ident
from traceback import extract_tb
from typing import Any

import torch
from torch import Tensor

from fmcheck.case import Case
from fmcheck.errors import DeclarationError, FmcheckError, NotInformative, without_frames
from fmcheck.record.ambient import ambient as surrounding
from fmcheck.record.attach import attach
from fmcheck.record.boundary import Boundary, boundaries, inputs_of, is_preview, iterate, mismatches
from fmcheck.record.disturb import Disturbance, InjectedFault
from fmcheck.record.model_state import ModelState, changed_inputs
from fmcheck.record.points import Arguments, find_output, lengths_in, replace_output, rows_listed, shapes_in
from fmcheck.record.trace import Call, Draw, Trace
from fmcheck.record.watch import (
    Births,
    RandomWatch,
    device_generators,
    global_random_state,
    restore_settings,
    settings,
)
from fmcheck.subject import ENTRIES, ROLES, Point, Request, Subject
from fmcheck.tensors import Scope, checks_enabled

__all__ = ["Observer", "record"]


class Observer:
    """Notes the calls of every observation point of one run into a trace."""

    def __init__(
        self,
        model: Any,
        subject: Subject,
        trace: Trace,
        *,
        generators: Mapping[str, torch.Generator],
        disturbances: Sequence[Disturbance] = (),
    ) -> None:
        self._trace = trace
        self._annotations = subject.tensor_annotations()
        self._typed = checks_enabled()
        case = trace.case
        channels, h, w = subject.spec.latent_size(case.height, case.width)
        sizes = {"B": case.batch, "C": channels, "h": h, "w": w, "H": case.height, "W": case.width}
        frames, cells = subject.spec.latent_frames, subject.spec.packed_size
        if frames is not None:
            sizes["F"] = frames
        if subject.spec.token_patch is not None:
            sizes |= {"T": (frames or 1) * h * w // cells, "E": channels * cells}
        self._scope = Scope({**sizes, "ch": subject.spec.image_channels})
        self._watch = RandomWatch({**generators, **device_generators(case.device)}, process=True)
        self._disturbances = disturbances
        # How deep a thread is in a role; another thread's call of it is one of its own.
        self.impossible: NotInformative | None = None
        self._inside: dict[tuple[int, str], int] = {}
        self._answered: dict[str, Tensor] = {}
        self._last: str | None = None
        # The copy of the last output: pictures are large, and pass through several hands unchanged.
        self._newest: Tensor | None = None
        self._boundaries = boundaries(model, subject.points)

    def attached(self) -> Any:
        """Context manager: the wrappers are on while it lasts."""
        # Made here and not kept: they know the observer, and a cycle would hold the whole trace until it is collected.
        return attach([(boundary.place, self._around(boundary)) for boundary in self._boundaries])

    def _around(self, boundary: Boundary) -> Callable[..., Any]:
        def around(original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            arguments = boundary.arguments(args, kwargs)
            role, point = boundary.role_of(arguments) or ("", None)
            # Calls that a point makes of itself, for instance in chunks, are part of its outermost call.
            if point is None or self._inside.get((get_ident(), role)):
                return original(*args, **kwargs)
            return self._observe(role, point, boundary, original, arguments)

        return around

    def _observe(
        self, role: str, point: Point, boundary: Boundary, original: Callable[..., Any], arguments: Arguments
    ) -> Any:
        call = self._begin(role, point, boundary, arguments)
        with self._within(call):
            changed = self._disturb_inputs(call, point, arguments)
            self._check(call, call.inputs)
            live = inputs_of(role, point, arguments)
            listed = rows_listed(arguments.get(point.arguments.get("x")))
            # What a disturbance exchanged was not changed by the call.
            watched = {n: v for n, v in call.inputs.items() if isinstance(v, Tensor) and n not in changed}
            returned = self._call(role, original, arguments)

            def end(value: Any) -> Any:
                call.mutated = changed_inputs(watched, live)
                return self._end(call, point, live, value, listed)

            if is_preview(returned):
                # Its event holds the last tensor that it yields.
                return iterate(returned, end, lambda: self._within(call))
            return end(returned)

    def _call(self, role: str, original: Callable[..., Any], arguments: Arguments) -> Any:
        """What the point returns: called as the loop asks, or in another way, or once where others answer for it."""
        mine = [disturbance for disturbance in self._disturbances if disturbance.role == role]
        around = next((d.around for d in mine if d.around), None)
        if around is not None:
            return self._possible(lambda: around(original, arguments))
        if role in self._answered:
            return self._answered[role]
        returned = original(*arguments.args, **arguments.kwargs)
        # A tensor shows nothing but its dtype and device; what else a container holds may be another thing every time.
        if isinstance(returned, Tensor) and any(disturbance.replaces for disturbance in mine):
            self._answered[role] = returned
        return returned

    def _possible(self, change: Callable[[], Any]) -> Any:
        """What a disturbance makes; where it cannot be made, that is kept, since the user's loop may swallow it."""
        try:
            return change()
        except (DeclarationError, NotInformative) as error:
            self.impossible = NotInformative(str(error))
            raise self.impossible from error

    def _begin(self, role: str, point: Point, boundary: Boundary, arguments: Arguments) -> Call:
        number = len(self._trace.of(role))
        call = Call(role, number, grad=torch.is_grad_enabled())
        where = f"after {self._last}" if self._last else "before the first observed call"
        self._note_draws(f"{where}, before {call.name}", self._last)
        call.inputs = {name: _copy(value) for name, value in inputs_of(role, point, arguments).items()}
        passed = (arguments.args, arguments.kwargs)
        call.shapes = tuple(shapes_in(passed))
        if role == "velocity":
            call.lengths = tuple(lengths_in(passed))
        module = boundary.place.module
        if module is not None:
            call.training = module.training
            # An entry is a method of the whole model; its parts show for themselves what mode they are in.
            call.dropout = role not in ENTRIES and boundary.acts_in_training
        self._trace.calls.append(call)
        return call

    @contextmanager
    def _within(self, call: Call) -> Iterator[None]:
        """While code of the observed point runs: its draws, its errors, and the axis sizes of this call."""
        before, key = self._last, (get_ident(), call.role)
        self._inside[key] = self._inside.get(key, 0) + 1
        try:
            with self._scope.call():
                yield
        except BaseException as error:
            call.error = error
            raise
        finally:
            self._inside[key] -= 1
            # Calls of other points may have ended within this one; later draws came after the last of them.
            inner = self._last if self._last != before else None
            self._note_draws(
                f"after {inner}, inside {call.name}" if inner else f"inside {call.name}", inner or call.name
            )
            self._last = call.name

    def _disturb_inputs(self, call: Call, point: Point, arguments: Arguments) -> set[str]:
        """Apply the disturbances of this call's inputs; returns the names of the exchanged ones."""
        changed = set()
        for disturbance in self._disturbances:
            if disturbance.role != call.role:
                continue
            if disturbance.fault:
                raise InjectedFault(disturbance.fault)
            if disturbance.inputs:
                change = partial(disturbance.inputs, inputs_of(call.role, point, arguments))
                for name, value in self._possible(change).items():
                    selector = point.arguments.get(name) if ROLES[call.role] else name
                    self._possible(partial(arguments.set, name if selector is None else selector, value))
                    changed.add(name)
        return changed

    def _end(self, call: Call, point: Point, live: dict[str, Any], returned: Any, listed: int | None) -> Any:
        ids = live.get("input_ids")
        holds = listed, len(ids) if isinstance(ids, Tensor) and ids.dim() else None
        output = find_output(returned, point.output, *holds)
        for disturbance in self._disturbances:
            if disturbance.role == call.role and disturbance.output:
                output = self._possible(partial(_disturbed, disturbance.output, live, output, call.name))
                returned = self._possible(partial(replace_output, returned, point.output, output, *holds))
        if output is not None:
            call.output = self.kept(output) if call.role in ENTRIES else self._copied(output)
            call.live = output if self._trace.kind == "loss" else None
        self._check(call, {"output": output})
        return returned

    def kept(self, output: Tensor) -> Tensor:
        """A copy of what an entry returns; where that is what an inner call returned, the copy made then."""
        newest = self._newest
        known = newest is not None and newest.dtype == output.dtype and newest.device == output.device
        if newest is not None and known and torch.equal(newest, output):
            return newest
        return self._copied(output)

    def _copied(self, output: Tensor) -> Tensor:
        self._newest = output.detach().clone()
        return self._newest

    def _check(self, call: Call, values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            if isinstance(value, Tensor):
                call.devices[f"{call.role}.{name}"] = value.device.type
        if self._typed:
            found = mismatches(self._scope, self._annotations, call.role, values, call.name)
            call.mismatches += [mismatch for _, mismatch in found]

    def _note_draws(self, where: str, last: str | None) -> None:
        self._trace.draws += [Draw(source, where, last) for source in self._watch.moved()]

    def finish(self) -> None:
        """Note what was drawn after the last observed call."""
        self._note_draws(f"after {self._last}" if self._last else "outside any observed call", self._last)


def _disturbed(
    change: Callable[[dict[str, Any], Tensor], Tensor], live: dict[str, Any], output: Tensor | None, name: str
) -> Tensor:
    if output is None:
        raise NotInformative(f"{name} returned no tensor that could be disturbed (see Point.output)")
    return change(live, output)


def _copy(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, Tensor) else value


def record(
    model: Any,
    subject: Subject,
    case: Case,
    *,
    kind: str = "generate",
    inputs: Mapping[str, Any] | None = None,
    images: Tensor | None = None,
    disturbances: Sequence[Disturbance] = (),
    disturb_rng: int | None = None,
    baseline: ModelState | None = None,
    thorough: bool = True,
    ambient: Sequence[str] = (),
) -> Trace:
    """Run the subject's `generate` (or `loss`) once and return the trace. Exceptions of the model are noted in it.

    Model values, modes, global random states and process settings are as before when it returns.

    Args:
        inputs: tensors from `subject.tokenize`, handed on in the request.
        disturbances: deliberate changes at observation points.
        disturb_rng: seeds the global generators with this number first.
        baseline: the model as found, when the caller already has it (saves a copy of the weights).
        thorough: whether to compare all weights, see :meth:`ModelState.changes`.
        ambient: settings of the process while the subject's function runs, see :mod:`fmcheck.record.ambient`.

    Raises:
        DeclarationError: an observation point does not exist, or the subject's own function raised one.
        NotInformative: a disturbance cannot be made.
    """
    trace = Trace(case, kind, images=_copy(images), disturbed=bool(disturbances))
    inputs = dict(inputs or {})
    inputs_before = {name: _copy(value) for name, value in inputs.items()}
    baseline = trace.found = baseline or ModelState(model)
    process = settings()
    caller = torch.Generator(device="cpu").manual_seed(case.seed)
    drive = subject.generate if kind == "generate" else subject.loss
    assert drive is not None
    with ExitStack() as stack:
        moved = stack.enter_context(global_random_state(case.device, disturb=disturb_rng))
        # After the generators were disturbed, or it would note that as a draw.
        observer = Observer(model, subject, trace, generators={"caller": caller}, disturbances=disturbances)
        caught = stack.enter_context(warnings.catch_warnings(record=True))
        warnings.simplefilter("always")
        births = stack.enter_context(Births())
        stack.enter_context(observer.attached())
        started = time.perf_counter()
        try:
            with surrounding(ambient, case.device):
                trace.returned = drive(model, Request(case, inputs, caller, images))
                if is_preview(trace.returned):
                    trace.returned = next(iter(deque(trace.returned, maxlen=1)), None)
            found = find_output(trace.returned, None)
            trace.result = None if found is None else observer.kept(found)
        except FmcheckError:
            # A declaration that is wrong is no failure of the model.
            raise
        except Exception as error:
            trace.error, trace.raised_in = error, extract_tb(error.__traceback__)
        finally:
            trace.seconds = time.perf_counter() - started
            # Last in, first out, and each whatever became of the others.
            with ExitStack() as last:
                last.callback(_look_at_inputs, trace, inputs_before, inputs)
                last.callback(_look_at_model, trace, baseline, thorough)
                last.callback(_look_at_process, trace, process)
                observer.finish()
                trace.rng_changes = moved()
                trace.born = births.names
    for raised in (trace.error, *(call.error for call in trace.calls)):
        without_frames(raised)
    if observer.impossible is not None:
        raise copy(observer.impossible)
    trace.warnings = [str(w.message) for w in caught]
    return trace


def _look_at_process(trace: Trace, before: Mapping[str, Any]) -> None:
    trace.process_changes = restore_settings(before)


def _look_at_model(trace: Trace, baseline: ModelState, thorough: bool) -> None:
    trace.modules = baseline.modules
    trace.model_changes = baseline.changes(thorough=thorough)
    if trace.model_changes:
        baseline.restore()
    if trace.kind == "loss":
        baseline.restore_gradients()


def _look_at_inputs(trace: Trace, before: Mapping[str, Any], inputs: Mapping[str, Any]) -> None:
    trace.input_changes = changed_inputs(before, inputs)
    for name in trace.input_changes:
        if isinstance(inputs.get(name), Tensor) and inputs[name].shape == before[name].shape:
            with torch.no_grad():
                inputs[name].copy_(before[name])
