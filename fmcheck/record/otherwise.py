"""Other ways to make one and the same call: in parts of the batch, or from memory in another order."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from fmcheck.errors import NotInformative
from fmcheck.record.points import Arguments, find_output, replace_output, rows_listed, stacked
from fmcheck.subject import Point
from fmcheck.tensors import describe

__all__ = ["InParts", "channels_last", "parts_of"]


def channels_last(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The input `x` of a call with the same values, its channels last in memory; nothing where it has not four axes."""
    x = inputs.get("x")
    if not isinstance(x, Tensor) or x.dim() != 4:
        return {}
    return {"x": x.clone(memory_format=torch.channels_last)}


def parts_of(rows: int, batch: int) -> list[Tensor]:
    """The row numbers of two parts of a call, int64: those of the first half of the prompts, and the others.

    In a doubled batch both branches of a prompt go into one part, so that each part is a doubled batch too. Rows that
    are no multiple of the prompts are cut in the middle.
    """
    period = batch if rows % batch == 0 else rows
    first = torch.arange(rows) % period < (period + 1) // 2
    return [part for part in (first.nonzero().flatten(), (~first).nonzero().flatten()) if len(part)]


class InParts:
    """Makes a call in two parts of its rows and puts their outputs together.

    Every tensor among the arguments whose first axis is as long as that of `x` is cut with it, in lists and mappings
    too. What surrounds the output tensor is that of the first part.

    Args:
        point: which argument is `x`, and where the output is.
        batch: the number of prompts.
    """

    def __init__(self, point: Point, batch: int) -> None:
        self.point, self.batch = point, batch

    def __call__(self, original: Callable[..., Any], arguments: Arguments) -> Any:
        """
        Raises:
            NotInformative: the output has not a row for every row of `x`.
        """
        listed = arguments.get(self.point.arguments.get("x"))
        x, rows = stacked(listed), rows_listed(listed)
        parts = parts_of(len(x), self.batch) if isinstance(x, Tensor) and x.dim() else []
        if len(parts) < 2:
            return original(*arguments.args, **arguments.kwargs)
        returned = [
            original(*_taken(arguments.args, part, len(x)), **_taken(arguments.kwargs, part, len(x))) for part in parts
        ]
        sizes = [None if rows is None else len(part) for part in parts]
        outputs = [find_output(value, self.point.output, size) for value, size in zip(returned, sizes, strict=True)]
        found = [_rows(output, part) for output, part in zip(outputs, parts, strict=True)]
        joined = torch.cat(found)[torch.cat(parts).argsort().to(found[0].device)]
        return replace_output(returned[0], self.point.output, joined, sizes[0])


def _rows(output: Tensor | None, part: Tensor) -> Tensor:
    if output is None or not output.dim() or len(output) != len(part):
        raise NotInformative(f"{describe(output)} has not a row for every one of the {len(part)} that were given")
    return output


def _taken(value: Any, rows: Tensor, count: int) -> Any:
    """The same with these rows of every tensor that has `count` of them."""
    if isinstance(value, Tensor):
        return value[rows.to(value.device)] if value.dim() and len(value) == count else value
    if isinstance(value, dict):
        return {key: _taken(part, rows, count) for key, part in value.items()}
    if type(value) in (list, tuple) and len(value) == count and all(isinstance(row, Tensor) for row in value):
        return type(value)(value[int(row)] for row in rows)  # of any lengths, as captions are
    if type(value) in (list, tuple):
        return type(value)(_taken(part, rows, count) for part in value)
    return value
