"""The state of a model and of the tensors handed to it: noticing what a run changed, and putting it back."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from fmcheck.record.attach import Wrapper
from fmcheck.tensors import has_values

__all__ = ["ModelState", "changed_inputs", "modules_of", "walk"]


# Deeper or longer than this are no parts of a model: a vocabulary, a table, a cache.
_DEEPEST, _LONGEST = 4, 256
_LEAVES = (Tensor, str, bytes, int, float, complex, type, ModuleType, FunctionType, MethodType, BuiltinFunctionType)


def modules_of(model: Any) -> dict[str, nn.Module]:
    """The modules a model consists of, by name: itself, or those in its attributes and entries (as in a pipeline).

    Plain objects, lists, tuples and dicts among them are looked into, a few levels deep; attributes in slots too.
    """
    found: dict[str, nn.Module] = {}
    seen: set[int] = set()
    waiting = [("", model, 0)]
    while waiting:
        path, value, depth = waiting.pop(0)
        if isinstance(value, Wrapper):
            value = value.original  # the recorder's own, which is no part of the model
        if isinstance(value, nn.Module):
            found[path] = value
        elif depth <= _DEEPEST and id(value) not in seen and not isinstance(value, _LEAVES):
            seen.add(id(value))
            for name, part in _parts(value):
                waiting.append((f"{path}.{name}" if path else str(name), part, depth + 1))
    return found


def _parts(value: Any) -> list[tuple[Any, Any]]:
    if isinstance(value, list | tuple | Mapping):
        if len(value) > _LONGEST:
            return []
        return list(value.items()) if isinstance(value, Mapping) else list(enumerate(value))
    slots = [name for kind in type(value).__mro__ for name in _names(getattr(kind, "__slots__", ()))]
    return [*getattr(value, "__dict__", {}).items(), *((n, getattr(value, n)) for n in slots if hasattr(value, n))]


def _names(slots: Any) -> list[str]:
    return [slots] if isinstance(slots, str) else list(slots)


def walk(model: Any) -> Iterator[tuple[str, nn.Module]]:
    """Every module once, with its path. Its own loop: `named_modules` nests a generator for every level."""
    seen: set[int] = set()
    stack = list(reversed(modules_of(model).items()))
    while stack:
        path, module = stack.pop()
        if id(module) in seen:
            continue
        seen.add(id(module))
        yield path, module
        children = [(f"{path}.{key}" if path else key, m) for key, m in module._modules.items() if m is not None]
        stack += reversed(children)


_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class ModelState:
    """Values, modes, gradients, their flags and hooks of a model as found, to compare with and to return to.

    `modules` counts the modules that were found; without any there is nothing to compare.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        modules = list(walk(model))
        tensors = _tensors(modules)
        self._copies = {name: t.detach().clone() for name, t in tensors.items()}
        self._stamps = {name: _stamp(t) for name, t in tensors.items()}
        self.modules = len(modules)
        self._gradients = {name: t.grad for name, t in tensors.items() if t.is_leaf}
        self._flags = {name: t.requires_grad for name, t in tensors.items()}
        self._modes = {name: module.training for name, module in modules}
        self._hooks = _hooks(modules)

    def equals(self, other: "ModelState") -> bool:
        """Whether both were found with the same parameters and buffers, bit for bit."""
        mine, others = self._copies, other._copies
        return mine.keys() == others.keys() and all(_unchanged(mine[name], others[name]) for name in mine)

    def unlike(self, other: "ModelState") -> str | None:
        """A tensor that is not the other model's up to the rounding of the shorter dtype; None where all are.

        Tensors that only one of them has are not compared.
        """
        for name, mine in self._copies.items():
            theirs = other._copies.get(name)
            if theirs is not None and not _rounded_alike(mine, theirs):
                return name
        return None

    def adopt(self, other: "ModelState") -> None:
        """Give this model the values of another one, wherever that is, and take them for the state as found."""
        tensors = _tensors(walk(self._model))
        with torch.no_grad():
            for name, theirs in other._copies.items():
                mine = tensors.get(name)
                if mine is not None and mine.shape == theirs.shape:
                    mine.copy_(theirs)
                    self._copies[name] = mine.detach().clone()
                    self._stamps[name] = _stamp(mine)

    def changes(self, *, thorough: bool = True) -> list[str]:
        """What differs from the state as found, in words.

        Args:
            thorough: compare every number. Otherwise only tensors that were exchanged or that torch counts as written
                to since they were last found equal, which misses what was written through `.data`.
        """
        modules = list(walk(self._model))
        now = _tensors(modules)
        found = [f"{name} appeared" for name in now if name not in self._copies]
        found += [f"{name} disappeared" for name in self._copies if name not in now]
        for name, before in self._copies.items():
            tensor = now.get(name)
            if tensor is None or (not thorough and self._untouched(name, tensor)):
                continue
            if tensor.requires_grad == self._flags[name] and _equal(tensor, before):
                self._stamps[name] = _stamp(tensor)
            else:
                found += self._tensor_changes(name, before, tensor)
        switched = [n or "the model" for n, module in modules if module.training != self._modes.get(n, module.training)]
        if switched:
            found.append(f"train/eval mode changed: {', '.join(switched[:3])} ({len(switched)} modules)")
        hooks = _hooks(modules)
        changed = [n for n in {**self._hooks, **hooks} if _keys(self._hooks.get(n)) != _keys(hooks.get(n))]
        return found + [f"hooks on {n or 'the model'} changed" for n in changed]

    def _untouched(self, name: str, tensor: Tensor) -> bool:
        stamp = self._stamps[name]
        return stamp is not None and stamp == _stamp(tensor) and tensor.requires_grad == self._flags[name]

    def _tensor_changes(self, name: str, before: Tensor, tensor: Tensor) -> list[str]:
        found = []
        if not _alike(tensor, before):
            found.append(f"{name} was replaced by one of another shape, dtype or device")
        elif not _same(tensor, before):
            found.append(f"{name} changed its values")
        if tensor.requires_grad != self._flags[name]:
            found.append(f"{name}.requires_grad changed to {tensor.requires_grad}")
        return found

    def restore_gradients(self) -> None:
        """Put the gradients back: those that a loss with a backward pass of its own has left are not the caller's."""
        for name, tensor in _tensors(walk(self._model)).items():
            if name in self._gradients and tensor.grad is not self._gradients[name]:
                tensor.grad = self._gradients[name]

    def restore(self) -> None:
        """Put values, modes, gradient flags and hooks back.

        Parameters born meanwhile stay, and so do those of another shape: a model that rebuilds a layer must be seen to.
        """
        modules = list(walk(self._model))
        with torch.no_grad():
            for name, tensor in _tensors(modules).items():
                before = self._copies.get(name)
                if before is None:
                    continue
                if _alike(tensor, before):
                    # In place, since other tensors may share the storage. (Leaving a mode switches gradients on.)
                    with torch.inference_mode() if tensor.is_inference() else nullcontext():
                        tensor.copy_(before)
                elif tensor.shape == before.shape:
                    # Through .data, which takes another dtype and device too (a model that cast itself).
                    tensor.data = before.clone()
                if tensor.is_leaf:
                    tensor.requires_grad_(self._flags[name])
        hooks = _hooks(modules)
        for name, module in modules:
            module.training = self._modes.get(name, module.training)
            if name in self._modes and _keys(hooks.get(name)) != _keys(self._hooks.get(name)):
                for kind, before_hooks in zip(_HOOKS, self._hooks.get(name, ({},) * len(_HOOKS)), strict=True):
                    present = getattr(module, kind)
                    present.clear()
                    present.update(before_hooks)


def _tensors(modules: Iterable[tuple[str, nn.Module]]) -> dict[str, Tensor]:
    """Parameters and buffers by path; a tensor that hangs in two places has the name of the first."""
    found: dict[str, Tensor] = {}
    seen: set[int] = set()
    for path, module in modules:
        for key, tensor in [*module._parameters.items(), *module._buffers.items()]:
            if tensor is not None and id(tensor) not in seen and has_values(tensor):
                seen.add(id(tensor))
                found[f"{path}.{key}" if path else key] = tensor
    return found


def _hooks(modules: Iterable[tuple[str, nn.Module]]) -> dict[str, tuple[dict[int, Any], ...]]:
    """The hooks of every module that has any."""
    found = {}
    for path, module in modules:
        kinds = module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks
        if any(kinds):
            found[path] = tuple(dict(kind) for kind in kinds)
    return found


def _stamp(tensor: Tensor) -> tuple[int, int, int] | None:
    """Changes whenever a tensor is exchanged or written to, except through `.data`; None where torch keeps no count."""
    return None if tensor.is_inference() else (id(tensor), tensor.data_ptr(), tensor._version)


def _keys(hooks: tuple[dict[int, Any], ...] | None) -> list[list[int]]:
    return [list(kind) for kind in hooks or ({},) * len(_HOOKS)]


def _alike(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and a.device == b.device


def _equal(a: Tensor, b: Tensor) -> bool:
    """The usual case, in as few steps as possible: every weight is looked at after every run."""
    return a.dtype == b.dtype and a.device == b.device and torch.equal(a, b)


def _same(a: Tensor, b: Tensor) -> bool:
    # equal() calls NaN different from itself; a weight that was NaN and stayed NaN has not changed.
    return torch.equal(a, b) or (a.is_floating_point() and torch.equal(a.isnan(), b.isnan()) and _same_numbers(a, b))


def _same_numbers(a: Tensor, b: Tensor) -> bool:
    # An infinity becomes the largest number of its dtype, which must not pass for it.
    return torch.equal(a.isinf(), b.isinf()) and torch.equal(a.nan_to_num(), b.nan_to_num())


def changed_inputs(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Names of the tensors that are no longer what they were."""
    return [
        name for name, value in before.items() if isinstance(value, Tensor) and not _unchanged(value, now.get(name))
    ]


def _unchanged(before: Tensor, now: Any) -> bool:
    return isinstance(now, Tensor) and _alike(before, now) and _same(before, now)


def _rounded_alike(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors of one shape hold the same numbers, up to one rounding to the shorter of their dtypes."""
    if a.is_meta or b.is_meta:
        return True
    if a.shape != b.shape:
        return False
    a, b = a.cpu(), b.cpu()
    if a.is_floating_point() and b.is_floating_point() and a.dtype != b.dtype:
        shorter = max(a.dtype, b.dtype, key=lambda dtype: torch.finfo(dtype).eps)
        a, b = a.to(shorter), b.to(shorter)
    return _same(a, b)
