"""Calls made in parts give what the whole gives; inputs laid out otherwise hold what they held."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from fmcheck.errors import NotInformative
from fmcheck.record.otherwise import InParts, channels_last, parts_of
from fmcheck.record.points import Arguments, Parameters
from fmcheck.subject import Point

POINT = Point("network", arguments={"x": "x"})


def call(function: Any, batch: int, *args: Any, point: Point = POINT, **kwargs: Any) -> Any:
    return InParts(point, batch)(function, Arguments(Parameters(function), args, kwargs))


@pytest.mark.parametrize(
    ("rows", "batch", "parts"),
    [
        (3, 3, [[0, 1], [2]]),
        (6, 3, [[0, 1, 3, 4], [2, 5]]),
        (4, 3, [[0, 1], [2, 3]]),
        (2, 3, [[0], [1]]),
        (1, 3, [[0]]),
        (2, 1, [[0, 1]]),
    ],
)
def test_both_branches_of_a_prompt_stay_together(rows: int, batch: int, parts: list[list[int]]) -> None:
    assert [part.tolist() for part in parts_of(rows, batch)] == parts


def test_rows_come_back_in_their_order_and_every_argument_by_row_is_cut() -> None:
    seen: list[int] = []

    def network(x: Tensor, time: Tensor, table: Tensor, extra: dict[str, Any]) -> Tensor:
        seen.append(len(x))
        assert len(time) == len(extra["text"][0]) == len(x)
        assert len(table) == 5
        return x * time[:, None] + extra["text"][0]

    x, time = torch.arange(12.0).reshape(6, 2), torch.arange(6.0)
    extra = {"text": [torch.ones(6, 2)], "name": "cross", "scale": 2.0}
    found = call(network, 3, x, time=time, table=torch.zeros(5), extra=extra)
    assert seen == [4, 2]
    assert torch.equal(found, x * time[:, None] + 1)


@dataclass
class Output:
    sample: Tensor
    hidden: int = 7


def test_what_surrounds_the_output_is_kept() -> None:
    x = torch.randn(4, 3)
    found = call(lambda x: Output(2 * x), 4, x, point=Point("network", arguments={"x": 0}))
    assert isinstance(found, Output)
    assert found.hidden == 7
    assert torch.equal(found.sample, 2 * x)


def test_a_single_row_is_not_cut() -> None:
    assert call(len, 3, torch.zeros(1, 2), point=Point("network", arguments={"x": 0})) == 1


@pytest.mark.parametrize("output", [lambda x: x.sum(), lambda x: torch.cat([x, x]), lambda x: "text"])
def test_an_output_without_rows_cannot_be_put_together(output: Any) -> None:
    with pytest.raises(NotInformative, match="has not a row for every one of the 2 that were given"):
        call(output, 4, torch.zeros(4, 2), point=Point("network", arguments={"x": 0}))


def test_channels_last_changes_nothing_but_the_layout() -> None:
    x = torch.randn(2, 3, 4, 5)
    changed = channels_last({"x": x})["x"]
    assert torch.equal(changed, x)
    assert changed.is_contiguous(memory_format=torch.channels_last)
    assert not changed.is_contiguous()


@pytest.mark.parametrize("x", [torch.zeros(2, 3), None, [1.0]])
def test_what_has_not_four_axes_is_left_alone(x: object) -> None:
    assert channels_last({"x": x}) == {}
