"""Reading and replacing the arguments and outputs of one observed call."""

import copy
import dataclasses
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from fmcheck.errors import DeclarationError
from fmcheck.tensors import has_values, zeros_and_ones

__all__ = [
    "Arguments",
    "Parameters",
    "find_output",
    "lengths_in",
    "replace_output",
    "rows_listed",
    "shapes_in",
    "stacked",
]

MISSING = object()


class Parameters:
    """The parameters of a callable without its self; none for callables that tell nothing (C functions).

    Read when first asked for: most calls are read by position, which needs no signature.
    """

    def __init__(self, function: Callable[..., Any], *, unbound: bool = False, module: nn.Module | None = None) -> None:
        self._function, self._unbound = _signed(function, module), unbound

    @cached_property
    def _all(self) -> list[inspect.Parameter]:
        try:
            found = list(inspect.signature(self._function).parameters.values())
        except (TypeError, ValueError):
            return []
        return found[1:] if self._unbound else found

    @cached_property
    def positional(self) -> list[str]:
        """Names of those that may be passed by position, in order."""
        return [p.name for p in self._all if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]

    @cached_property
    def keywords(self) -> list[str]:
        """Names of those that may be passed by name."""
        return [p.name for p in self._all if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)]

    @cached_property
    def open_ended(self) -> bool:
        """Whether any name may be passed: `**kwargs`, or a signature that tells nothing."""
        return not self._all or any(p.kind == p.VAR_KEYWORD for p in self._all)

    @cached_property
    def defaults(self) -> dict[str, Any]:
        """Default values by name."""
        return {p.name: p.default for p in self._all if p.default is not p.empty}


def _signed(function: Callable[..., Any], module: nn.Module | None) -> Callable[..., Any]:
    """What a call is handed on to, where a wrapping module (compiled, parallel) takes whatever comes."""
    while module is not None:
        inner = getattr(module, "_orig_mod", getattr(module, "module", None))
        if not isinstance(inner, nn.Module):
            break
        module, function = inner, inner.forward
    return function


class Arguments:
    """The arguments of one call, addressed by parameter name or position, however the caller passed them."""

    def __init__(self, parameters: Parameters, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        self.args = list(args)
        self.kwargs = dict(kwargs)
        self._parameters = parameters

    def _slot(self, selector: str | int) -> tuple[str, Any] | None:
        if isinstance(selector, int):
            if selector < len(self.args):
                return "args", selector
            name = self.name_of(selector) if self.kwargs else None
            return ("kwargs", name) if name in self.kwargs else None
        if selector in self.kwargs:
            return "kwargs", selector
        positional = self._parameters.positional
        if selector in positional and positional.index(selector) < len(self.args):
            return "args", positional.index(selector)
        return None

    def get(self, selector: str | int | None, default: Any = None) -> Any:
        """The value passed for the selector, or `default` when the caller passed none."""
        slot = None if selector is None else self._slot(selector)
        return default if slot is None else getattr(self, slot[0])[slot[1]]

    def effective(self, selector: str | int | None, default: Any = None) -> Any:
        """The value that the call will see: the one passed, else the signature's own default."""
        name = self.name_of(selector)
        return self.get(selector, self._parameters.defaults.get(name, default) if name is not None else default)

    def name_of(self, selector: str | int | None) -> str | None:
        """The parameter's name, where the signature tells it."""
        if isinstance(selector, int):
            positional = self._parameters.positional
            return positional[selector] if selector < len(positional) else None
        return selector

    def set(self, selector: str | int, value: Any) -> None:
        """Replace a passed value, or pass one for a parameter that the caller left at its default.

        Raises:
            DeclarationError: the call has no such parameter.
        """
        slot = self._slot(selector)
        if slot is not None:
            container, key = getattr(self, slot[0]), slot[1]
            container[key] = _as_before(container[key], value)
        elif self.name_of(selector) in self._parameters.keywords:
            self.kwargs[str(self.name_of(selector))] = value
        else:
            raise DeclarationError(f"argument {selector!r} was not passed to the observed call, which has none such")

    def by_name(self) -> dict[str, Any]:
        """All passed values by parameter name (positions as names where the signature has none)."""
        names = self._parameters.positional
        passed = {names[i] if i < len(names) else str(i): value for i, value in enumerate(self.args)}
        return {**passed, **self.kwargs}

    def match(self, when: Mapping[str, Any]) -> bool:
        """Whether every argument of `when` has its value, defaults of the signature included."""
        return all(_equal(self.effective(name, MISSING), value) for name, value in when.items())


def _equal(value: Any, wanted: Any) -> bool:
    # Tensors and arrays answer == elementwise.
    answer = value is wanted or value == wanted
    return answer if isinstance(answer, bool) else False


def find_output(
    returned: Any, selector: str | int | None, rows: int | None = None, prompts: int | None = None
) -> Tensor | None:
    """The tensor in what a call returned: by selector, or the first one found; None when there is none.

    A list of as many tensors as the `rows` that the call was handed in a list is one tensor of them. Layers of a text
    encoder that was handed so many `prompts`, which `selector` picks, are one tensor `[prompts, layers, ...]`.

    A tensor is its own output, whatever the selector: `return_dict=False` and the like unwrap what it points into.
    """
    if isinstance(returned, Tensor):
        return returned
    if _holds_rows(returned, selector, rows):
        value = stacked(returned)
        return value if isinstance(value, Tensor) else None
    if selector is None:
        value = next(_tensors(returned), (None, None))[1]
    else:
        picked = _pick(returned, selector)
        value = stacked(picked, _axis_of_rows(picked, prompts))
    return value if isinstance(value, Tensor) else None


def _axis_of_rows(picked: Any, prompts: int | None) -> int:
    """The axis along which a list goes in the tensor that it is read as: 0, or 1 where it holds layers.

    Layers have a row for every prompt each. Tokens of one prompt have no axis of rows: two axes, and as many of them as
    there are prompts, are read as tokens.
    """
    if prompts is None or not _alike(picked):
        return 0
    return int(len(picked[0]) == prompts and (picked[0].dim() > 2 or len(picked) != prompts))


def _holds_rows(returned: Any, selector: str | int | None, rows: int | None) -> bool:
    """Whether a call that was handed so many rows in a list has returned as many, one by one."""
    return selector is None and rows is not None and type(returned) is list and len(returned) == rows


def _alike(value: Any) -> bool:
    """Whether it is a list of tensors of one shape, with more than one axis each."""
    if type(value) not in (list, tuple) or not value or not all(isinstance(part, Tensor) for part in value):
        return False
    return len({(part.shape, part.dtype, part.device) for part in value}) == 1 and value[0].dim() > 1


def stacked(value: Any, dim: int = 0) -> Any:
    """Rows that are handed over one by one, in a list of tensors of one shape, as one tensor; others as they are."""
    return torch.stack(tuple(value), dim) if _alike(value) else value


def _tensors_in(value: Any) -> Iterator[Tensor]:
    """Every tensor in a value, in lists, tuples and mappings too."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple | Mapping):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from _tensors_in(part)


def shapes_in(value: Any) -> Iterator[torch.Size]:
    """The shape of every tensor in a value, in lists, tuples and mappings too."""
    return (tensor.shape for tensor in _tensors_in(value))


def lengths_in(value: Any) -> Iterator[int]:
    """For every mask of tokens `[N, L]` in a value, how many tokens of its longest row count."""
    return (int(tensor.sum(dim=1).max()) for tensor in _tensors_in(value) if _is_mask(tensor))


def _is_mask(tensor: Tensor) -> bool:
    whole = not (tensor.is_floating_point() or tensor.is_complex())
    return whole and tensor.dim() == 2 and tensor.numel() > 0 and has_values(tensor) and zeros_and_ones(tensor)


def rows_listed(value: Any) -> int | None:
    """How many rows a list of them holds; None for anything else."""
    return len(value) if _alike(value) else None


def _as_before(before: Any, value: Any, dim: int = 0) -> Any:
    """The value as the list that it replaces, where it replaces one."""
    return type(before)(value.unbind(dim)) if isinstance(value, Tensor) and _alike(before) else value


def replace_output(
    returned: Any, selector: str | int | None, tensor: Tensor, rows: int | None = None, prompts: int | None = None
) -> Any:
    """What the call returned, with its tensor replaced; containers are copied, never changed in place.

    Raises:
        DeclarationError: there is no tensor to replace, or its container cannot be copied.
    """
    if isinstance(returned, Tensor):
        return tensor
    if _holds_rows(returned, selector, rows):
        return _as_before(returned, tensor)
    listed = _pick(returned, selector) if selector is not None else None
    if _alike(listed):
        return _with_entry(returned, selector, _as_before(listed, tensor, _axis_of_rows(listed, prompts)))
    before = find_output(returned, selector)
    # The selector first: one tensor may be there twice.
    keys = [key for key, value in _tensors(returned) if value is before]
    key = selector if selector in keys else next(iter(keys), None)
    kind = type(returned)
    if key is None:
        raise DeclarationError(f"no tensor in what an observed call returned ({kind.__name__}); set Point.output")
    try:
        return _with_entry(returned, key, tensor)
    except (AttributeError, TypeError) as error:
        raise DeclarationError(
            f"the output of an observed call ({kind.__name__}) cannot be changed: {error}"
        ) from error


def _with_entry(returned: Any, key: Any, value: Any) -> Any:
    """A copy of a container with one entry replaced."""
    if isinstance(returned, tuple) and isinstance(key, int):
        values = [value if i == key else entry for i, entry in enumerate(returned)]
        return type(returned)(*values) if hasattr(returned, "_fields") else type(returned)(values)
    container = copy.copy(returned)
    if isinstance(container, list | Mapping):
        container[key] = value  # type: ignore[index]
        if isinstance(key, str) and hasattr(container, "__dict__") and key in vars(container):
            # Mappings with attribute access (diffusers' and transformers' outputs) keep both views in step.
            object.__setattr__(container, key, value)
    else:
        object.__setattr__(container, key, value)
    return container


def _tensors(returned: Any) -> Iterator[tuple[Any, Tensor]]:
    """Key and tensor of every tensor directly in a container, in its order."""
    entries: Iterable[tuple[Any, Any]] = ()
    if isinstance(returned, list | tuple):
        entries = enumerate(returned)
    elif isinstance(returned, Mapping):
        entries = returned.items()
    elif dataclasses.is_dataclass(returned):
        entries = ((f.name, getattr(returned, f.name, None)) for f in dataclasses.fields(returned))
    elif hasattr(returned, "__dict__"):
        entries = vars(returned).items()
    return ((key, value) for key, value in entries if isinstance(value, Tensor))


def _pick(returned: Any, selector: str | int) -> Any:
    # A mapping's own entry before its attributes: `values` and `items` are methods of every dict.
    if isinstance(selector, str) and not (isinstance(returned, Mapping) and selector in returned):
        return getattr(returned, selector, None)
    try:
        return returned[selector]
    except (TypeError, KeyError, IndexError):
        return None
