"""Weights of two model objects: alike up to the rounding of the shorter dtype, and handed from one to the other."""

import pytest
import torch
from torch import nn

from fmcheck.record.model_state import ModelState


def _model(seed: int, dtype: torch.dtype = torch.float32) -> nn.Sequential:
    torch.manual_seed(seed)
    with torch.random.fork_rng():
        return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).to(dtype)


@pytest.fixture(autouse=True)
def _generator() -> object:
    with torch.random.fork_rng():
        yield


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_a_cast_model_is_alike_both_ways(dtype: torch.dtype) -> None:
    one, other = ModelState(_model(0)), ModelState(_model(0, dtype))
    assert one.unlike(other) is None
    assert other.unlike(one) is None


def test_the_first_tensor_that_differs_is_named() -> None:
    assert ModelState(_model(0)).unlike(ModelState(_model(1, torch.bfloat16))) == "0.weight"


def test_another_shape_is_another_tensor_and_one_that_only_one_has_is_not_compared() -> None:
    assert ModelState(nn.Linear(3, 4)).unlike(ModelState(nn.Linear(3, 5))) == "weight"
    assert ModelState(nn.Linear(3, 4)).unlike(ModelState(nn.Sequential(nn.Linear(7, 7)))) is None


def test_adopted_weights_are_the_state_as_found() -> None:
    source, target = _model(0), _model(1, torch.bfloat16)
    state = ModelState(target)
    state.adopt(ModelState(source))
    assert torch.equal(target[0].weight, source[0].weight.bfloat16())
    assert state.changes() == []
    assert state.changes(thorough=False) == []
    with torch.no_grad():
        target[0].weight.zero_()
    state.restore()
    assert torch.equal(target[0].weight, source[0].weight.bfloat16())
