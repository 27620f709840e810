"""Intermediate results that several rules share, kept on the record they were computed from."""

from collections.abc import Callable
from copy import copy
from functools import wraps
from typing import Any, TypeVar

from fmcheck.errors import NotInformative

__all__ = ["Memo", "once"]

T = TypeVar("T")
M = TypeVar("M", bound="Memo")


class Memo:
    """A record that remembers what was computed from it; it must not change after the first question."""

    def memo(self, compute: Callable[[Any], T]) -> T:
        """`compute(self)`, computed once; a premise that does not hold is remembered too."""
        known: dict[Any, Any] = self.__dict__.setdefault("_known", {})
        if compute not in known:
            try:
                known[compute] = compute(self)
            except NotInformative as reason:
                known[compute] = copy(reason)
        found = known[compute]
        if isinstance(found, NotInformative):
            # Another one each time: what is raised takes the frames that it passes along, and they their tensors.
            raise copy(found)
        return found  # type: ignore[no-any-return]


def once(function: Callable[[M], T]) -> Callable[[M], T]:
    """A function of one record, computed once for each."""

    @wraps(function)
    def remembered(record: M) -> T:
        return record.memo(function)

    return remembered
