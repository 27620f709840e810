"""Every place of a user's model that can be looked at, as the dotted paths that observation points are written in."""

import inspect
import sys
import types
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

__all__ = ["objects", "paths", "user_modules"]

_DEEPEST, _MOST = 5, 4000
# Methods of every library class that have nothing to do with a run, and which nothing is gained by watching.
_DULL = ("to", "cuda", "cpu", "train", "eval", "half", "float", "parameters", "buffers", "modules", "apply", "compile")
_DULL_PREFIXES = ("save_", "from_", "load_", "register", "enable_", "disable_", "set_", "get_", "push_", "named_")
_PLAIN = (str, bytes, int, float, complex, type(None), torch.Tensor, torch.dtype, torch.device, torch.Generator, type)


def objects(model: Any) -> dict[str, Any]:
    """Objects that can be reached from the model, by dotted path; the model itself is `""`. Each is named once."""
    found: dict[str, Any] = {"": model}
    known, waiting = {id(model)}, [("", model, 0)]
    while waiting and len(found) < _MOST:
        path, owner, depth = waiting.pop(0)
        for name, value in _entries(owner) if depth < _DEEPEST or isinstance(owner, nn.Module) else ():
            if isinstance(value, _PLAIN) or id(value) in known or _is_foreign(value):
                continue
            known.add(id(value))
            inner = f"{path}.{name}" if path else name
            found[inner] = value
            waiting.append((inner, value, depth + 1))
    return found


def _entries(owner: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(owner, nn.Module):
        yield from owner.named_children()
    if isinstance(owner, dict):
        yield from ((k, v) for k, v in owner.items() if isinstance(k, str) and k.isidentifier())
    elif isinstance(owner, list) and len(owner) < 100:
        yield from ((str(i), v) for i, v in enumerate(owner))
    elif not isinstance(owner, types.FunctionType | types.MethodType):
        for name, value in list(getattr(owner, "__dict__", {}).items()):
            if not name.startswith("_"):
                yield name, value


def _is_foreign(value: Any) -> bool:
    """Whether it is neither a network, a container nor an object of somebody's own class."""
    if isinstance(value, nn.Module | dict | list) or callable(value):
        return False
    return type(value).__module__.partition(".")[0] in ("builtins", "torch", "numpy", "collections", "types")


def user_modules(module: types.ModuleType, model: Any) -> list[types.ModuleType]:
    """The builder's module, and those of the same package that its functions and the model's classes come from."""
    top = module.__name__.partition(".")[0]
    names = [module.__name__]
    names += [getattr(value, "__module__", None) or "" for value in vars(module).values() if callable(value)]
    names += [type(value).__module__ for value in objects(model).values()]
    mine = (name for name in dict.fromkeys(names) if name.partition(".")[0] == top and name in sys.modules)
    return [sys.modules[name] for name in mine]


def paths(model: Any, modules: list[types.ModuleType], builder: Any = None) -> Iterator[str]:
    """Dotted paths of everything callable: networks, public methods, callable attributes, functions of the modules."""
    for path, value in objects(model).items():
        prefix = f"{path}." if path else ""
        if path and (isinstance(value, nn.Module) or callable(value)):
            yield path
        yield from (prefix + name for name in _methods(value))
    for module in modules:
        for name, value in vars(module).items():
            mine = getattr(value, "__module__", "").partition(".")[0] == module.__name__.partition(".")[0]
            if mine and inspect.isfunction(value) and value is not builder:
                yield f"{module.__name__}:{name}"


def _methods(value: Any) -> list[str]:
    if isinstance(value, dict | list | types.FunctionType | types.MethodType | types.BuiltinFunctionType):
        return []
    names = []
    for kind in type(value).__mro__:
        if kind.__module__.partition(".")[0] in ("torch", "builtins", "abc", "typing", "functools"):
            continue
        for name, member in vars(kind).items():
            public = not name.startswith("_") and name not in _DULL and not name.startswith(_DULL_PREFIXES)
            function = inspect.isfunction(member) or isinstance(member, staticmethod | classmethod)
            if public and function and name != "forward":
                names.append(name)
    return list(dict.fromkeys(names))
