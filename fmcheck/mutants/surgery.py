"""Replacing one method of one object: how a mutant breaks a freshly built model without touching its class."""

import functools
from collections.abc import Callable
from types import MethodType
from typing import Any

__all__ = ["bind", "wrap"]


def bind(owner: Any, name: str, function: Callable[..., Any]) -> None:
    """Give this one object another method: `function(self, ...)` under `name`."""
    setattr(owner, name, MethodType(function, owner))


def wrap(owner: Any, name: str, around: Callable[..., Any]) -> None:
    """Put `around(original, ...)` in place of a method of this one object; its signature stays visible."""
    original = getattr(owner, name)

    @functools.wraps(original)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return around(original, *args, **kwargs)

    setattr(owner, name, wrapper)
