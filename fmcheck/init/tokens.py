"""Finding what makes tokens of prompts: a function, method or attribute that was tried on two prompts."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from fmcheck.init.places import objects
from fmcheck.init.source import Source

__all__ = ["Tokens", "find_tokens"]

_NAMES = ("prompts", "prompt", "texts", "text", "captions", "batch")
_VARIANTS = ("{}({})", "{}(model, {})", '{}({}, padding=True, return_tensors="pt")')


@dataclass(frozen=True)
class Tokens:
    """`expression` of `model`, `prompts` and `source` makes a tuple of tensors, or a mapping of them by name.

    `doubled`: the sampler wants as many empty prompts behind the prompts.
    """

    expression: str
    names: tuple[str, ...]
    mapping: bool
    doubled: bool = False
    single: bool = False

    def named(self, names: list[str]) -> "Tokens":
        return self if self.mapping and set(names) <= set(self.names) else replace(self, names=tuple(names))

    @property
    def text(self) -> str:
        """The expression, with the prompts that it is given."""
        prompts = 'prompts + [""] * len(prompts)' if self.doubled else "prompts"
        return self.expression.format(prompts=prompts)

    def make(self, source: Source, model: Any, prompts: list[str]) -> Mapping[str, Any]:
        made = eval(self.text, {"source": source.module, "model": model, "prompts": prompts, "torch": torch})
        return _as_mapping(made, self.names, self.single)


def _as_mapping(made: Any, names: tuple[str, ...], single: bool) -> Mapping[str, Any]:
    if isinstance(made, Mapping):
        return dict(zip(names, made.values(), strict=True)) if set(names) != set(made) else dict(made)
    return {names[0]: made} if single else dict(zip(names, made, strict=True))


def find_tokens(source: Source, model: Any) -> list[Tokens]:
    """Everything that makes integer rows of two prompts, in order of reachability; each also doubled."""
    found: list[Tokens] = []
    prompts = ["a red bird on a branch", "boats"]
    for head, _ in _functions(source, model):
        for variant in _VARIANTS:
            expression = variant.format(head, "{prompts}")
            try:
                made = eval(
                    expression.format(prompts="prompts"), {"source": source.module, "model": model, "prompts": prompts}
                )
            except Exception:
                continue
            names = _names(made, len(prompts))
            if names:
                found.append(Tokens(expression, names, isinstance(made, Mapping), single=isinstance(made, Tensor)))
                break
    return [*found, *(replace(tokens, doubled=True) for tokens in found)]


def _names(made: Any, count: int) -> tuple[str, ...]:
    """Names of the tensors, where the first holds integer rows, one a prompt."""
    if isinstance(made, Tensor):
        made = (made,)
    values = list(made.values()) if isinstance(made, Mapping) else made
    if not isinstance(values, list | tuple) or not values or not all(isinstance(v, Tensor) for v in values):
        return ()
    whole = not values[0].is_floating_point() and values[0].dtype != torch.bool
    if not whole or any(v.dim() != 2 or len(v) != count for v in values):
        return ()
    defaults = ("input_ids", "attention_mask", *(f"extra_{i}" for i in range(len(values))))
    return tuple(made) if isinstance(made, Mapping) else defaults[: len(values)]


def _functions(source: Source, model: Any) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for path, value in objects(model).items():
        head = f"model.{path}" if path else "model"
        if path and "token" in path.rpartition(".")[2] and callable(value):
            found.append((head, value))
        if path.count(".") < 1:
            for name in dir(type(value)):
                member = inspect.getattr_static(type(value), name, None)
                plain = isinstance(member, staticmethod | classmethod) or inspect.isfunction(member)
                if plain and not name.startswith("_"):
                    found.append((f"{head}.{name}", getattr(value, name)))
    for name, value in vars(source.module).items():
        if inspect.isfunction(value) and value.__module__ == source.module.__name__ and value is not source.builder:
            found.append((f"source.{name}", value))
    return [(head, value) for head, value in found if _takes_prompts(head, value)]


def _takes_prompts(head: str, function: Any) -> bool:
    """Whether it may be called with the prompts alone; an object called `tokenizer` is asked whatever it says."""
    try:
        parameters = [p for p in inspect.signature(function).parameters.values() if p.kind < p.VAR_KEYWORD]
    except (TypeError, ValueError):
        return "token" in head.rpartition(".")[2]
    required = [p for p in parameters if p.default is p.empty and p.kind != p.VAR_POSITIONAL]
    named = [p.name in _NAMES or "list[str]" in str(p.annotation).lower() for p in parameters[:2]]
    alone, behind_the_model = any(named[:1]) and len(required) <= 1, any(named[1:]) and len(required) == 2
    return alone or behind_the_model or "token" in head.rpartition(".")[2]
