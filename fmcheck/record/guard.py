"""`fmcheck.wrap`: typed wrappers that stay on a model and raise at the offending call."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from fmcheck.errors import DeclarationError, TensorMismatch
from fmcheck.record.attach import Place, put
from fmcheck.record.boundary import Boundary, boundaries, inputs_of, is_preview, iterate, mismatches
from fmcheck.record.cause import Slip, likely_cause
from fmcheck.record.points import Arguments, find_output
from fmcheck.spec import FlowSpec
from fmcheck.subject import ENTRIES, ROLES, Point, Subject, annotations_of, completed_points
from fmcheck.tensors import Mismatch, Scope, checks_enabled, describe
from fmcheck.values import is_count

__all__ = ["Guard", "wrap"]


def wrap(
    model: Any,
    subject: Subject | None = None,
    *,
    spec: FlowSpec | None = None,
    entry: str | Point | None = None,
    loss_entry: str | Point | None = None,
    velocity: str | Point | None = None,
    text: str | Point | None = None,
    encode: str | Point | None = None,
    sample: str | Point | None = None,
    decode: str | Point | None = None,
    annotations: Mapping[str, Any] | None = None,
) -> "Guard":
    """Make a model raise :class:`~fmcheck.errors.TensorMismatch` at the first call whose tensors do not fit.

    The axes `B C h w H W` are bound once for every outermost call of `entry` (or `loss_entry`), so that a latent of
    another height in the third step is caught although each call alone looks right. Heights and widths are read from
    the entry's own arguments `height` and `width`; `Point("generate", {"height": "size", "width": "size"})` names
    others (None: none), and `"prompts"` the argument whose length is `B`. Outside an entry every call stands alone.

    It changes no result, keeps no tensor, and checks nothing (at the price of one Python call) while jaxtyping is
    switched off (`JAXTYPING_DISABLE=1`), and inside code that torch.compile traces.

    Args:
        model: the model whose attributes the paths start from.
        subject: where the observation points and conventions come from; the other arguments take precedence.
        spec: gives channels and downsampling. Without one they are taken from the first tensor of a run.
        entry, loss_entry, velocity, text, encode, sample, decode: dotted paths or points, as in a `Subject`.
        annotations: replaces entries of :data:`fmcheck.tensors.ANNOTATIONS`.

    Returns:
        The guard; it stays on until `guard.remove()`, or until the end of `with wrap(...):`.

    Raises:
        DeclarationError: no observation point, one that does not exist, or one that is guarded already.
    """
    if subject is not None and not isinstance(subject, Subject):
        raise DeclarationError(f"wrap: expected a Subject as second argument; found {type(subject).__name__}")
    given = {
        "generate": entry,
        "text": text,
        "velocity": velocity,
        "encode": encode,
        "sample": sample,
        "decode": decode,
        "loss": loss_entry,
    }
    points = {**(subject.points if subject else {}), **completed_points(given, "wrap")}
    if not points:
        raise DeclarationError(
            "wrap: names no observation point; give a Subject or dotted paths such as velocity='net'"
        )
    conventions = spec or (subject.spec if subject else None)
    known = annotations_of(conventions, {**(subject.annotations if subject else {}), **(annotations or {})})
    return Guard(model, points, conventions, known)


@dataclass
class _Run:
    """One call of an entry (by its path), or one call outside any; `inside` are the roles that are running."""

    name: str
    scope: Scope = field(default_factory=Scope)
    calls: dict[str, int] = field(default_factory=dict)
    inside: list[str] = field(default_factory=list)

    def next_call(self, role: str) -> str:
        number = self.calls[role] = self.calls.get(role, -1) + 1
        return f"{role}[{number}]"


# The runs that are open in this thread or task, by guard: several guards may be nested.
_OPEN: ContextVar[Mapping[int, _Run]] = ContextVar("fmcheck guards", default=MappingProxyType({}))


class Guard:
    """The wrappers that :func:`wrap` put on a model. Also a context manager, which removes them at its end."""

    def __init__(
        self, model: Any, points: Mapping[str, Point], spec: FlowSpec | None, annotations: Mapping[str, Any]
    ) -> None:
        self._spec, self._annotations = spec, annotations
        self._undo: list[Callable[[], None]] = []
        found = boundaries(model, points)
        for boundary in found:
            _refuse_second(boundary.place)
        try:
            for boundary in found:
                self._undo.append(put(boundary.place, _Around(self, boundary)))
        except BaseException:
            self.remove()
            raise

    @property
    def active(self) -> bool:
        """Whether the wrappers are on."""
        return bool(self._undo)

    def remove(self) -> None:
        """Take the wrappers off; harmless when they are off already."""
        while self._undo:
            self._undo.pop()()

    def __enter__(self) -> "Guard":
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def observe(self, boundary: Boundary, original: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Make one call, its inputs checked before it and its output after it."""
        arguments = boundary.arguments(args, kwargs)
        role, point = boundary.role_of(arguments) or ("", None)
        if point is None:
            return original(*args, **kwargs)
        run = _OPEN.get().get(id(self))
        if run is not None and role in run.inside and role not in ENTRIES:
            # What a point calls of itself, in tiles or chunks, is part of its outermost call.
            return original(*args, **kwargs)
        # An entry that calls itself, in parts or at another size, has sizes of its own.
        opens = role in ENTRIES
        run = self._open(role, point, arguments) if opens or run is None else run
        call = _Call(run, role, point, run.next_call(role), arguments, self._annotations)

        def within() -> Any:
            return self._within(run, role, opens)

        with within():
            call.check(inputs_of(role, point, arguments))
            returned = original(*args, **kwargs)
            if not is_preview(returned):
                return call.end(returned)
        return iterate(returned, call.end, within)

    @contextmanager
    def _within(self, run: _Run, role: str, opens: bool) -> Iterator[None]:
        run.inside.append(role)
        token = _OPEN.set({**_OPEN.get(), id(self): run}) if opens else None
        try:
            with run.scope.call():
                yield
        finally:
            run.inside.remove(role)
            if token is not None:
                _OPEN.reset(token)

    def _open(self, role: str, point: Point, arguments: Arguments) -> _Run:
        run = _Run(point.path if role in ENTRIES else "")
        spec, bind = self._spec, run.scope.bind
        if spec:
            bind("C", spec.latent_channels, "the spec")
            bind("ch", spec.image_channels, "the spec")
        for axis, small, name in (("H", "h", "height"), ("W", "w", "width")) if role in ENTRIES else ():
            size = arguments.effective(point.arguments.get(name, name))
            if is_count(size):
                origin = f"argument {name} of {point.path}"
                bind(axis, size, origin)
                if spec and size % spec.downsampling == 0:
                    bind(small, size // spec.downsampling, origin)
        prompts = arguments.effective(point.arguments.get("prompts"))
        if isinstance(prompts, list | tuple | Tensor):
            bind("B", len(prompts), f"argument {point.arguments['prompts']} of {point.path}")
        return run


class _Around:
    """What a guarded place calls. Knows its guard, so that a second one is recognised."""

    def __init__(self, guard: Guard, boundary: Boundary) -> None:
        self.guard, self.boundary = guard, boundary

    def __call__(self, original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not checks_enabled() or not self.guard.active or torch.compiler.is_compiling():
            return original(*args, **kwargs)
        return self.guard.observe(self.boundary, original, args, kwargs)


def _refuse_second(place: Place) -> None:
    value = place.value
    while value is not None:
        around = getattr(value, "around", None)
        if isinstance(around, _Around) and around.guard.active:
            raise DeclarationError(
                f"wrap: {around.boundary.roles[0][1].path} is guarded already; remove the first guard with remove()"
            )
        value = getattr(value, "__wrapped__", None)


@dataclass
class _Call:
    """One call of an observed place, while it is checked."""

    run: _Run
    role: str
    point: Point
    name: str
    arguments: Arguments
    annotations: Mapping[str, Any]
    device: torch.device | None = None

    def check(self, values: Mapping[str, Any]) -> None:
        """Raise for the first value that does not fit."""
        for part, mismatch in mismatches(self.run.scope, self.annotations, self.role, values, self.name):
            raise TensorMismatch(self._message(part, mismatch, values[part]))
        for part, value in values.items():
            # A number on the CPU may go along with tensors of any device.
            if ROLES[self.role] and isinstance(value, Tensor) and value.dim():
                self._check_device(part, value)

    def end(self, returned: Any) -> Any:
        """Check what the call returned, and return it."""
        self.check({"output": find_output(returned, self.point.output)})
        return returned

    def _check_device(self, part: str, value: Tensor) -> None:
        self.device = self.device or value.device
        # Text encoders may well be handed tokens on the CPU and answer from their own device.
        if value.device != self.device and not (part == "output" and "x" not in ROLES[self.role]):
            mismatch = Mismatch(f"{self.role}.{part}", "device", str(self.device), str(value.device), "")
            raise TensorMismatch(self._message(part, mismatch, value))

    def _message(self, part: str, mismatch: Mismatch, value: Any) -> str:
        scope = self.run.scope
        axes = tuple(getattr(self.annotations.get(mismatch.tensor), "dim_str", "").split())
        slip = Slip(part, mismatch.aspect, self._spoken(part), value, axes, scope.sizes)
        found = describe(value) if mismatch.aspect != "device" else f"{mismatch.found} ({describe(value)})"
        lines = [
            f"{mismatch.tensor} of {self.point.path}: wrong {mismatch.aspect}{self._where}",
            f"  expected  {mismatch.expected}",
            f"  found     {found}",
        ]
        bound = _origins(scope, axes, self.name) if mismatch.aspect in ("shape", "rank") else ""
        lines += [f"  bound     {bound}"] if bound else []
        cause = likely_cause(slip)
        return "\n".join(lines + ([f"  cause     {cause}"] if cause else []))

    @property
    def _where(self) -> str:
        return f" in {self.name} of {self.run.name}" if self.run.name else ""

    def _spoken(self, part: str) -> str:
        name = self.arguments.name_of(self.point.arguments.get(part)) if part != "output" else "the output"
        return name or part


def _origins(scope: Scope, axes: tuple[str, ...], call: str) -> str:
    """`C=32 by the spec; h=8 w=8 by velocity.x of velocity[0]`, for the axes of one annotation."""
    groups: dict[str, list[str]] = {}
    for axis in axes:
        if axis in scope.sizes:
            origin = scope.origins.get(axis, "").replace(f" of {call}", " of this call")
            groups.setdefault(origin, []).append(f"{axis}={scope.sizes[axis]}")
    return "; ".join(f"{' '.join(sizes)} by {origin}" for origin, sizes in groups.items())
