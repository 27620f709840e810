"""Whose defect it is when a rule breaks: fmcheck's own, or that of the package which brought the rule."""

import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from fmcheck.errors import DeclarationError, ForeignRuleError, InternalError, NotInformative
from fmcheck.plan import Wish
from fmcheck.rules.registry import Rule

__all__ = ["blamed", "broken", "wished"]


def broken(rule: Rule, during: str, error: Exception) -> InternalError:
    """The error of a rule that broke; for a rule of another package with the package and the line."""
    if not rule.package:
        return InternalError(f"rule {rule} broke {during}: {error!r}")
    return ForeignRuleError(
        f"rule {rule} of package {rule.package!r} broke at {_place(rule.function, error)} {during}: "
        f"{type(error).__name__}: {error}"
    )


@contextmanager
def blamed(rule: Rule, during: str) -> Iterator[None]:
    """While code of a rule runs: what it raises becomes the rule's defect, except what rules raise on purpose.

    Raises:
        InternalError: the rule broke; a ForeignRuleError where it is another package's.
        DeclarationError: a function that the user declared is at fault.
    """
    try:
        yield
    except (NotInformative, MemoryError, torch.OutOfMemoryError, InternalError):
        raise
    except DeclarationError as error:
        # What the user declared and a rule of ours asked, such as a judge, says so itself.
        if not rule.package:
            raise
        raise broken(rule, during, error) from error
    except Exception as error:
        raise broken(rule, during, error) from error


def wished(rule: Rule, wish: Callable[..., Mapping[str, Wish]] | None, *about: Any) -> Mapping[str, Wish]:
    """The runs that a relation rule wishes for, by name; none without a function that says which.

    Raises:
        InternalError: another package's rule broke while it wished. fmcheck's own may find the declaration wrong.
    """
    if wish is None:
        return {}
    if not rule.package:
        return wish(*about)
    with blamed(rule, "while wishing for runs"):
        wishes = wish(*about)
        if not isinstance(wishes, Mapping) or not all(isinstance(entry, Wish) for entry in wishes.values()):
            raise TypeError(f"expected names and runs of the plan, such as {{'base': plan.base}}; found {wishes!r}")
    return wishes


def _place(function: Callable[..., Any], error: Exception) -> str:
    """`file:line`, the last one in the file of the rule; where the error passed none, its first line."""
    code = function.__code__
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == code.co_filename]
    return f"{code.co_filename}:{lines[-1] if lines else code.co_firstlineno}"
