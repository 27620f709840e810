"""Importing the user's builder and calling it, as an expression that can be written into a file."""

import importlib
import inspect
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fmcheck.case import Case
from fmcheck.errors import DeclarationError, did_you_mean

__all__ = ["Source", "load_source"]


@dataclass
class Source:
    """The builder's module and how it is called: `source.make(device=case.device)`, or an object as it stands.

    `native_dtype` is the dtype that the builder would choose itself, where its signature says so.
    """

    target: str
    module: types.ModuleType
    builder: Any
    expression: str
    native_dtype: torch.dtype | None
    takes_dtype: bool

    def build(self, case: Case) -> Any:
        """A model for the case.

        Raises:
            DeclarationError: the builder raised, or returned nothing.
        """
        names = {"source": self.module, "case": case, "torch": torch}
        try:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                model = eval(self.expression, names)
        except Exception as error:
            raise DeclarationError(
                f"init: {self.target}: {self.expression} raised {type(error).__name__}: {error}; give a builder that "
                f"works without arguments (signature: {_signature(self.builder)})"
            ) from error
        if model is None:
            raise DeclarationError(f"init: {self.target} returned None, expected the model; a missing return?")
        return model


def _signature(function: Any) -> str:
    try:
        return str(inspect.signature(function))
    except (TypeError, ValueError):
        return "unknown"


def load_source(target: str) -> Source:
    """The builder at `package.module:attribute` (the attribute may be dotted).

    Raises:
        DeclarationError: no such module or attribute, or an argument of the builder that nobody can guess.
    """
    module_name, _, attribute = target.partition(":")
    parts = [*module_name.split("."), *attribute.split(".")]
    if not all(part.isidentifier() for part in parts):
        raise DeclarationError(
            f"init: expected package.module:builder, such as my_package.model:build; found {target!r}"
        )
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise DeclarationError(f"init: importing {module_name!r} raised {type(error).__name__}: {error}") from error
    found: Any = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise DeclarationError(f"init: {target}: there is no {part!r}{did_you_mean(part, dir(found))}")
        found = getattr(found, part)
    return _source(target, module, attribute, found)


def _source(target: str, module: types.ModuleType, attribute: str, found: Any) -> Source:
    name = f"source.{attribute}"
    builds = isinstance(found, type) or inspect.isroutine(found)
    if not builds:
        return Source(target, module, found, name, None, False)
    arguments, native = [], None
    takes_dtype = False
    for parameter in _parameters(found):
        value = _argument(parameter)
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if value is None and parameter.default is parameter.empty:
            raise DeclarationError(
                f"init: {target}{_signature(found)}: nobody can guess the argument {parameter.name!r}; write a builder "
                "without arguments (def build(): return ...) and name that one"
            )
        if value == "case.torch_dtype":
            takes_dtype = True
            native = parameter.default if isinstance(parameter.default, torch.dtype) else None
        if value is not None:
            positional = parameter.kind == parameter.POSITIONAL_ONLY
            arguments.append(value if positional else f"{parameter.name}={value}")
    return Source(target, module, found, f"{name}({', '.join(arguments)})", native, takes_dtype)


def _parameters(found: Callable[..., Any]) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(found).parameters.values())
    except (TypeError, ValueError):
        return []


def _argument(parameter: inspect.Parameter) -> str | None:
    """What a builder's argument is given: device and dtype of the case, a seed where one is demanded."""
    name, default = parameter.name.lower(), parameter.default
    if name == "device" or isinstance(default, torch.device) or (default == "cpu" and isinstance(default, str)):
        return "case.device"
    if name in ("dtype", "torch_dtype", "precision") and (default is None or not isinstance(default, str)):
        return "case.torch_dtype"
    if isinstance(default, torch.dtype):
        return "case.torch_dtype"
    return "0" if "seed" in name and default is parameter.empty else None
