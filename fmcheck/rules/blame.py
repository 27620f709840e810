"""Whose defect it is when a rule breaks: fmcheck's own, or that of the package which brought the rule."""

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from fmcheck.errors import DeclarationError, ForeignRuleError, InternalError, NotInformative
from fmcheck.rules.registry import Rule

__all__ = ["blamed", "broken"]


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
    """
    try:
        yield
    except (NotInformative, MemoryError, torch.OutOfMemoryError, InternalError):
        raise
    except Exception as error:
        # fmcheck's own rules make runs through their subject's declaration; that may be wrong without any defect.
        if isinstance(error, DeclarationError) and not rule.package:
            raise
        raise broken(rule, during, error) from error


def _place(function: Callable[..., Any], error: Exception) -> str:
    """`file:line`, the last one in the file of the rule; where the error passed none, its first line."""
    code = function.__code__
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == code.co_filename]
    return f"{code.co_filename}:{lines[-1] if lines else code.co_firstlineno}"
