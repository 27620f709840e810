"""Putting a wrapper around a place in a user's model, and taking it off again exactly."""

import functools
import importlib
import inspect
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from fmcheck.errors import DeclarationError, did_you_mean

__all__ = ["Around", "Place", "Wrapper", "attach", "find", "put"]

# around(original, args, kwargs) -> whatever the caller of the observed place shall get
Around = Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]

_ABSENT = object()


class Place:
    """Where a callable hangs: an attribute of an object, or an entry of a list or dict."""

    def __init__(self, owner: Any, key: Any, *, entry: bool = False) -> None:
        self.owner, self.key, self.entry = owner, key, entry

    @property
    def value(self) -> Any:
        return self.owner[self.key] if self.entry else getattr(self.owner, self.key)

    @property
    def module(self) -> nn.Module | None:
        """The module whose method it is."""
        return self.owner if isinstance(self.owner, nn.Module) and not self.entry else None

    @property
    def unbound(self) -> bool:
        """Whether it is a plain function in a class, which is handed its object as the first argument."""
        if self.entry or not isinstance(self.owner, type):
            return False
        return inspect.isfunction(inspect.getattr_static(self.owner, self.key))

    def identity(self) -> tuple[int, Any]:
        """Equal for two paths that lead to the same callable, so that it is wrapped once."""
        return id(self.owner), self.key

    def put(self, wrapper: Any) -> Callable[[], None]:
        """Replace the callable; returns the function that undoes it to the letter.

        Raises:
            DeclarationError: the owner does not let itself be changed.
        """
        owner, key = self.owner, self.key
        if self.entry:
            before = owner[key]
            owner[key] = wrapper
            return lambda: owner.__setitem__(key, before)
        if isinstance(owner, type):
            # The raw entry, not getattr: a staticmethod or an inherited method must come back as what it was.
            before = vars(owner).get(key, _ABSENT)
            return self._put_attribute(wrapper if self.unbound else staticmethod(wrapper), before)
        if hasattr(inspect.getattr_static(type(owner), key, None), "__set__"):
            # A property or slot wins over the instance's own entries, and deleting it would not bring it back.
            return self._put_attribute(wrapper, getattr(owner, key))
        return self._put_entry(wrapper)

    def _put_attribute(self, wrapper: Any, before: Any) -> Callable[[], None]:
        owner, key = self.owner, self.key
        try:
            setattr(owner, key, wrapper)
        except (AttributeError, TypeError) as error:
            raise self._refusal() from error
        return lambda: delattr(owner, key) if before is _ABSENT else setattr(owner, key, before)

    def _put_entry(self, wrapper: Any) -> Callable[[], None]:
        # Into the instance's own entries, past any __setattr__ of the user (frozen dataclasses, compiled modules).
        entries, key = getattr(self.owner, "__dict__", None), self.key
        if entries is None:
            raise self._refusal()
        before = entries.get(key, _ABSENT)
        entries[key] = wrapper

        def undo() -> None:
            if before is _ABSENT:
                entries.pop(key, None)
            else:
                entries[key] = before

        return undo

    def _refusal(self) -> DeclarationError:
        return DeclarationError(
            f"observation point {self.key!r}: {type(self.owner).__name__} does not let it be replaced "
            "(read-only property or slot); name the function or module behind it"
        )


class Wrapper:
    """Stands in for a callable and hands its calls to `around`; signature and name stay visible.

    An object and not a function, so that copies and pickles of the model come out unwrapped: a function would be
    shared with the copy, which would then run the original's weights.
    """

    def __init__(self, original: Callable[..., Any], around: Around) -> None:
        # Pipelines ask their schedulers and networks for their signature. Past __setattr__, which is the original's.
        named: dict[str, Any] = {
            name: getattr(original, name) for name in functools.WRAPPER_ASSIGNMENTS if hasattr(original, name)
        }
        vars(self).update(named, __wrapped__=original, original=original, around=around, on=True)
        vars(self)["observe"] = _graph_break(around)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        # A model that kept the wrapper for itself must not feed a recording that is over.
        return self.observe(self.original, args, kwargs) if self.on else self.original(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        # A callable object has more to it than its calls.
        if "original" not in vars(self):
            raise AttributeError(name)
        return getattr(self.original, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.original, name, value)

    def __reduce__(self) -> tuple[Any, ...]:
        original = self.original
        if isinstance(original, types.MethodType):
            return _bind, (original.__func__, original.__self__)
        return _itself, (original,)


def _graph_break(around: Around) -> Around:
    """The same outside of any graph that torch.compile makes: a recorder cannot be traced, and must not change one."""
    if "torch._dynamo" not in sys.modules:
        return around
    return torch.compiler.disable(around)  # type: ignore[no-any-return, no-untyped-call]


def _itself(value: Any) -> Any:
    return value


def _bind(function: Callable[..., Any], instance: Any) -> Any:
    # pickle cannot name the class of methods, only this function.
    return types.MethodType(function, instance)


def _bound_wrapper(original: Callable[..., Any], around: Around) -> Callable[..., Any]:
    """A wrapper for a plain function in a class: it binds its object first."""

    around = _graph_break(around)

    @functools.wraps(original)
    def wrapper(instance: Any, *args: Any, **kwargs: Any) -> Any:
        bound = types.MethodType(original, instance)
        return around(bound, args, kwargs) if wrapper.on else bound(*args, **kwargs)  # type: ignore[attr-defined]

    wrapper.on = True  # type: ignore[attr-defined]
    return wrapper


def find(model: Any, path: str) -> Place:
    """Resolve a dotted path from the model, or `package.module:name`, to the place of a callable.

    Raises:
        DeclarationError: a part of the path does not exist (with the nearest name), or the end is not callable.
    """
    owner, dotted = model, path
    if ":" in path:
        module, _, dotted = path.partition(":")
        try:
            owner = importlib.import_module(module)
        except ImportError as error:
            raise DeclarationError(f"observation point {path!r}: cannot import {module!r}: {error}") from error
    *parents, last = dotted.split(".")
    root = path.partition(":")[0] if ":" in path else type(model).__name__
    for depth, part in enumerate(parents):
        owner = _step(owner, part, path, ".".join(parents[:depth]) or root)
    target = _step(owner, last, path, ".".join(parents) or root)
    if isinstance(target, nn.Module):
        return Place(target, "forward")
    if not callable(target):
        raise DeclarationError(
            f"observation point {path!r}: expected something callable, found {type(target).__name__}"
        )
    if isinstance(owner, tuple):
        raise DeclarationError(f"observation point {path!r}: a tuple cannot be changed; make it a list")
    if last.startswith("__") and last.endswith("__") and not isinstance(owner, type | types.ModuleType | dict):
        # Python looks these up on the class: an entry of the instance would never be called.
        return Place(type(owner), last)
    entry = (isinstance(owner, list) and last.isdigit()) or (isinstance(owner, dict) and last in owner)
    return Place(owner, int(last) if isinstance(owner, list) and entry else last, entry=entry)


def _step(owner: Any, part: str, path: str, where: str) -> Any:
    if part.isdigit() and isinstance(owner, list | tuple | nn.ModuleList | nn.Sequential) and int(part) < len(owner):
        return owner[int(part)]
    if isinstance(owner, dict | nn.ModuleDict) and part in owner:
        return owner[part]
    try:
        return getattr(owner, part)
    except AttributeError as error:
        if owner is None:
            raise DeclarationError(
                f"observation point {path!r}: {where} is None on the model that build() returned; load that part in "
                "build(), or leave the point out of the Subject"
            ) from error
        names = list(owner) if isinstance(owner, dict) else [name for name in dir(owner) if not name.startswith("_")]
        hint = did_you_mean(part, names)
        raise DeclarationError(f"observation point {path!r}: {where} has no {part!r}{hint}") from error


@contextmanager
def attach(wrappers: list[tuple[Place, Around]]) -> Iterator[None]:
    """Wrap every place while the context lasts; undone in reverse order whatever happens."""
    with ExitStack() as stack:
        for place, around in wrappers:
            stack.callback(put(place, around))
        yield


def put(place: Place, around: Around) -> Callable[[], None]:
    """Wrap one place; returns the function that takes the wrapper off."""
    original = place.value
    wrapper = _bound_wrapper(original, around) if place.unbound else Wrapper(original, around)
    take_off = place.put(wrapper)

    def undo() -> None:
        vars(wrapper)["on"] = False
        take_off()

    return undo
