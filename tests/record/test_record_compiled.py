"""Models that torch.compile has a hand in are recorded like any other: the recorder stays outside of every graph."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.record.conftest import STATE, TIMES, run


class Net(nn.Module):
    def forward(self, x: Tensor, time: Tensor, null: Tensor | None = None) -> Tensor:
        return x * time.reshape(-1, 1, 1, 1)


class Pipe:
    def __init__(self, velocity: Any) -> None:
        self.velocity = velocity

    def step(self, x: Tensor) -> Tensor:
        return x + self.velocity(x, TIMES)


def _in_place() -> Pipe:
    net = Net()
    net.compile(backend="eager")
    return Pipe(net)


def _around() -> Pipe:
    return Pipe(torch.compile(Net(), backend="eager"))


def _caller() -> Pipe:
    pipe = Pipe(Net())
    pipe.step = torch.compile(pipe.step, backend="eager")  # type: ignore[method-assign]
    return pipe


@pytest.mark.parametrize("make", [_in_place, _around, _caller], ids=["in place", "wrapped", "the caller"])
def test_every_call_is_recorded_and_no_bit_changes(make: Any) -> None:
    pipe = make()

    def generate(model: Pipe, request: Any) -> Tensor:
        x = STATE
        for _ in range(request.num_steps):
            x = model.step(x)
        return x

    trace = run(pipe, generate)
    assert trace.error is None
    assert [call.name for call in trace.calls] == ["velocity[0]", "velocity[1]"]
    assert torch.equal(trace.result, STATE * 2.25)


def test_arguments_of_a_compiled_network_are_known_by_name() -> None:
    pipe = _around()
    trace = run(pipe, lambda model, _: model.velocity(time=TIMES, x=STATE))
    assert torch.equal(trace.calls[0].inputs["x"], STATE)
    assert torch.equal(trace.calls[0].inputs["time"], TIMES)
