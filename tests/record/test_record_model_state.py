"""ModelState notices every kind of change to a model, says which, and undoes it."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from fmcheck.record.model_state import ModelState, modules_of, walk


def _model() -> nn.Module:
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Dropout())
    with torch.no_grad():
        model[0].bias[0] = torch.nan
        model[0].bias[1] = torch.inf
    return model


CHANGES: dict[str, tuple[Callable[[Any], Any], list[str]]] = {
    "value": (lambda m: m[0].weight.data.mul_(2), ["0.weight changed its values"]),
    "value in place": (lambda m: torch.nn.init.zeros_(m[0].weight), ["0.weight changed its values"]),
    "buffer": (lambda m: m[1].running_mean.add_(1), ["1.running_mean changed its values"]),
    "NaN becomes a number": (lambda m: m[0].bias.data.nan_to_num_(0.0), ["0.bias changed its values"]),
    "infinity becomes the largest number": (
        lambda m: m[0].bias.data[1:2].fill_(torch.finfo(torch.float32).max),
        ["0.bias changed its values"],
    ),
    "number becomes NaN": (lambda m: m[0].weight.data.fill_(torch.nan), ["0.weight changed its values"]),
    "dtype": (
        lambda m: m[0].half(),
        [
            "0.weight was replaced by one of another shape, dtype or device",
            "0.bias was replaced by one of another shape, dtype or device",
        ],
    ),
    "gradient flag": (
        lambda m: m[0].weight.requires_grad_(False),
        ["0.weight.requires_grad changed to False"],
    ),
    "mode": (lambda m: m.eval(), ["train/eval mode changed: the model, 0, 1 (4 modules)"]),
    "mode of one": (lambda m: m[2].eval(), ["train/eval mode changed: 2 (1 modules)"]),
    "forward hook": (lambda m: m[1].register_forward_hook(lambda *a: None), ["hooks on 1 changed"]),
    "forward pre-hook": (lambda m: m.register_forward_pre_hook(lambda *a: None), ["hooks on the model changed"]),
    "backward hook": (lambda m: m[0].register_full_backward_hook(lambda *a: None), ["hooks on 0 changed"]),
    "parameter exchanged": (
        lambda m: setattr(m[0], "weight", nn.Parameter(torch.zeros(3, 2))),
        ["0.weight changed its values"],
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_named_and_undone(name: str) -> None:
    model = _model()
    state = ModelState(model)
    assert state.changes() == []
    change, expected = CHANGES[name]
    change(model)
    assert state.changes() == expected
    state.restore()
    assert state.changes() == []


def test_hooks_that_were_there_stay() -> None:
    model, calls = _model(), []
    model[0].register_forward_hook(lambda *a: calls.append("kept"))
    state = ModelState(model)
    model[0]._forward_hooks.clear()
    model[0].register_forward_hook(lambda *a: calls.append("new"))
    assert state.changes() == ["hooks on 0 changed"]
    state.restore()
    model[0](torch.ones(1, 2))
    assert calls == ["kept"]


def test_what_is_born_stays_and_is_reported_and_what_is_gone_too() -> None:
    model = _model()
    state = ModelState(model)
    model[0].late = nn.Linear(1, 1, bias=False)
    del model[1].bias
    assert state.changes() == ["0.late.weight appeared", "1.bias disappeared"]
    state.restore()
    assert state.changes() == ["0.late.weight appeared", "1.bias disappeared"]


def test_a_layer_of_another_shape_stays_as_the_model_left_it() -> None:
    model = _model()
    state = ModelState(model)
    model[0] = nn.Linear(2, 5)
    found = ["0.weight was replaced by one of another shape, dtype or device"]
    assert state.changes()[:1] == found
    state.restore()
    assert model[0].weight.shape == (5, 2)


def test_a_frozen_model_on_integers_and_empty_buffers() -> None:
    model = nn.Module()
    model.register_buffer("index", torch.arange(3))
    model.register_buffer("none", None)
    model.register_buffer("empty", torch.zeros(0))
    state = ModelState(model)
    assert state.changes() == []
    model.index[0] = 7
    assert state.changes() == ["index changed its values"]


def test_shared_tensors_and_modules_are_looked_at_once() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[1].weight = model[0].weight
    model.add_module("again", model[0])
    assert [path for path, _ in walk(model)] == ["", "0", "1"]
    state = ModelState(model)
    model[0].weight.data.zero_()
    assert state.changes() == ["0.weight changed its values"]


def test_walking_finds_what_torch_finds() -> None:
    model = nn.ModuleDict({"a": nn.Sequential(nn.Linear(1, 1), nn.ReLU()), "b": nn.TransformerEncoderLayer(4, 2)})
    assert dict(walk(model)) == dict(model.named_modules())
    names = [name for name, _ in [*model.named_parameters(), *model.named_buffers()]]
    assert sorted(ModelState(model)._copies) == sorted(names)


def test_pipelines_keep_their_modules_in_attributes_and_tables() -> None:
    net, vae, text = nn.Linear(1, 1), nn.Linear(1, 1), nn.Linear(1, 1)
    pipeline = SimpleNamespace(net=net, parts={"vae": vae}, encoders=[text, None], steps=3)
    assert modules_of(pipeline) == {"net": net, "parts.vae": vae, "encoders.0": text}
    assert modules_of({"net": net}) == {"net": net}
    assert modules_of(lambda: None) == {}
    assert modules_of(3) == {}
    state = ModelState(pipeline)
    text.weight.data.zero_()
    assert state.changes() == ["encoders.0.weight changed its values"]


class _Slotted:
    __slots__ = ("engine", "unset")

    def __init__(self, engine: object) -> None:
        self.engine = engine


def test_modules_are_found_in_nested_objects_and_slots() -> None:
    inner = SimpleNamespace(net=nn.Linear(1, 1), table={str(i): i for i in range(10_000)})
    assert modules_of(_Slotted(inner)) == {"engine.net": inner.net}
    loop = SimpleNamespace(net=inner.net)
    loop.itself = loop
    assert modules_of(loop) == {"net": inner.net}


def test_restoring_keeps_storage_that_is_shared() -> None:
    model = nn.Linear(2, 2)
    alias = model.weight.data
    state, before = ModelState(model), model.weight.detach().clone()
    with torch.no_grad():
        model.weight.add_(1)
    state.restore()
    assert torch.equal(model.weight, before)
    assert torch.equal(alias, before)
    assert alias.data_ptr() == model.weight.data_ptr()


def test_gradients_of_a_loss_are_taken_away_again() -> None:
    model = nn.Linear(2, 1)
    state = ModelState(model)
    model(torch.ones(1, 2)).sum().backward()
    assert model.weight.grad is not None
    state.restore_gradients()
    assert model.weight.grad is None
    assert model.bias.grad is None


def test_layers_without_a_shape_yet_are_left_out() -> None:
    model = nn.Sequential(nn.LazyLinear(3), nn.Linear(3, 1))
    assert ModelState(model).changes() == []


def test_two_models_are_found_equal_bit_for_bit() -> None:
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    second.load_state_dict(first.state_dict())
    assert ModelState(first).equals(ModelState(second))
    with torch.no_grad():
        second.bias[0] += 1
    assert not ModelState(first).equals(ModelState(second))


def test_weights_that_are_elsewhere_are_not_compared() -> None:
    """On the meta device they have no values: an offloading hook brings them when they are used."""
    model = _model()
    model[0].to("meta")
    state = ModelState(model)
    assert state.changes() == []
    model[1].weight.data.mul_(2)
    assert state.changes() == ["1.weight changed its values"]
    state.restore()
    assert state.changes() == []
