"""A wrapper goes on at any place that a dotted path can name, sees the calls, and comes off to the letter."""

import copy
import functools
import inspect
import json
import pickle
import sys
import types
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from fmcheck.errors import DeclarationError
from fmcheck.record.attach import attach, find, put


def _module_function(x: int) -> int:
    return x + 1


class Base:
    def inherited(self, x: int) -> int:
        return x + 1


class Owner(Base):
    def __init__(self) -> None:
        self.partial = functools.partial(_module_function)
        self.function = _module_function
        self.functions = [_module_function, _module_function]
        self.table = {"step": _module_function, "values": 3}
        self.net = Net()
        self.nets = nn.ModuleList([Net(), Net()])
        self.named = nn.ModuleDict({"first": Net()})
        self.not_callable = 3

    def method(self, x: int) -> int:
        return x + 1

    @staticmethod
    def static(x: int) -> int:
        return x + 1

    @classmethod
    def made(cls, x: int) -> int:
        return x + 1

    @property
    def reached(self) -> "Net":
        return self.net

    @property
    def computed(self) -> Any:
        return _module_function


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x: Any) -> Any:
        return x + 1

    def other(self, x: Any) -> Any:
        return x + 1


@dataclass(frozen=True)
class Frozen:
    function: Any = _module_function
    extra: dict = field(default_factory=dict)


class Slotted:
    __slots__ = ("function",)

    def __init__(self) -> None:
        self.function = _module_function

    def method(self, x: int) -> int:
        return x + 1


# How to call what hangs at each path.
PLACES = {
    "method": lambda m: m.method(1),
    "inherited": lambda m: m.inherited(1),
    "static": lambda m: m.static(1),
    "made": lambda m: m.made(1),
    "partial": lambda m: m.partial(1),
    "function": lambda m: m.function(1),
    "functions.1": lambda m: m.functions[1](1),
    "table.step": lambda m: m.table["step"](1),
    "net": lambda m: m.net(1),
    "net.forward": lambda m: m.net(1),
    "net.other": lambda m: m.net.other(1),
    "nets.1": lambda m: m.nets[1](1),
    "named.first": lambda m: m.named["first"](1),
    "reached": lambda m: m.net(1),
    "reached.other": lambda m: m.net.other(1),
}


def _picture(model: Owner) -> list:
    """Everything a wrapper could leave behind, in order, by identity."""
    holders = [model, model.net, *model.nets, model.named["first"]]
    dicts = [[(k, id(v)) for k, v in vars(holder).items()] for holder in holders]
    classes = [[(k, id(v)) for k, v in vars(kind).items()] for kind in (Owner, Base, Net)]
    return [dicts, classes, list(map(id, model.functions)), [(k, id(v)) for k, v in model.table.items()]]


@pytest.mark.parametrize("path", PLACES)
def test_a_wrapper_sees_the_call_and_comes_off_to_the_letter(path: str) -> None:
    model, seen = Owner(), []
    before = _picture(model)
    place = find(model, path)
    for _ in range(2):
        with attach([(place, lambda original, args, kwargs: (seen.append(args), original(*args, **kwargs) * 10)[1])]):
            assert PLACES[path](model) == 20
        assert _picture(model) == before
        assert PLACES[path](model) == 2
    assert seen == [(1,), (1,)]


@pytest.mark.parametrize("path", PLACES)
def test_an_exception_takes_the_wrapper_off(path: str) -> None:
    model = Owner()
    before = _picture(model)

    def fails(original: Any, args: tuple, kwargs: dict) -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), attach([(find(model, path), fails)]):
        PLACES[path](model)
    assert _picture(model) == before


def test_a_failing_attachment_takes_the_earlier_ones_off() -> None:
    model = Owner()
    before = _picture(model)

    def plain(original: Any, args: tuple, kwargs: dict) -> Any:
        return original(*args, **kwargs)

    with (
        pytest.raises(DeclarationError, match="read-only property"),
        attach([(find(model, "method"), plain), (find(model, "computed"), plain)]),
    ):
        pytest.fail("the second place cannot be wrapped")
    assert _picture(model) == before


def test_nested_wrappers_come_off_one_by_one() -> None:
    model, seen = Owner(), []

    def noting(name: str) -> Any:
        return lambda original, args, kwargs: (seen.append(name), original(*args, **kwargs))[1]

    before = _picture(model)
    with attach([(find(model, "net"), noting("outer"))]):
        between = _picture(model)
        with attach([(find(model, "net"), noting("inner"))]):
            assert model.net(1) == 2
        assert _picture(model) == between
        assert model.net(1) == 2
    assert _picture(model) == before
    assert seen == ["inner", "outer", "outer"]


def test_functions_of_modules_are_named_with_a_colon() -> None:
    here = types.ModuleType("fmcheck_test_module")
    here.function, here.Owner = _module_function, Owner
    sys.modules["fmcheck_test_module"] = here
    try:
        before = dict(vars(here))
        with attach([(find(None, "fmcheck_test_module:function"), lambda o, a, k: 7)]):
            assert here.function(1) == 7
        assert vars(here) == before
    finally:
        del sys.modules["fmcheck_test_module"]


@pytest.mark.parametrize("name", ["method", "static", "made"])
def test_functions_in_a_class_keep_their_object(name: str) -> None:
    sys.modules["fmcheck_test_module"] = types.ModuleType("fmcheck_test_module")
    sys.modules["fmcheck_test_module"].Owner = Owner
    seen = []
    try:
        before = vars(Owner)[name]
        place = find(None, f"fmcheck_test_module:Owner.{name}")
        with attach([(place, lambda o, args, kwargs: (seen.append(args), o(*args, **kwargs))[1])]):
            assert getattr(Owner(), name)(1) == 2
        assert vars(Owner)[name] is before
    finally:
        del sys.modules["fmcheck_test_module"]
    assert seen == [(1,)], "the object itself is not among the arguments"


def test_frozen_dataclasses_and_slots() -> None:
    for model in (Frozen(), Slotted()):
        with attach([(find(model, "function"), lambda o, a, k: 7)]):
            assert model.function(1) == 7
        assert model.function is _module_function
    with pytest.raises(DeclarationError, match="'method': Slotted does not let it be replaced"):
        put(find(Slotted(), "method"), lambda o, a, k: 7)


def test_the_signature_stays_visible() -> None:
    model = Owner()
    before = inspect.signature(model.net.forward)
    with attach([(find(model, "net"), lambda o, a, k: o(*a, **k))]):
        assert inspect.signature(model.net.forward) == before
        assert model.net.forward.__name__ == "forward"


def test_copies_and_pickles_of_a_wrapped_model_run_on_their_own_weights() -> None:
    net, seen = nn.Linear(2, 2), []
    x = torch.ones(1, 2)
    with attach([(find(nn.Sequential(net), "0"), lambda o, a, k: (seen.append(1), o(*a, **k))[1])]):
        for duplicate in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
            nn.init.zeros_(duplicate.weight)
            nn.init.zeros_(duplicate.bias)
            assert torch.equal(duplicate(x), torch.zeros(1, 2))
        assert not torch.equal(net(x), torch.zeros(1, 2))
    assert seen == [1], "copies come out unwrapped"


BROKEN_PATHS = {
    "netz": "observation point 'netz': Owner has no 'netz'; did you mean 'net'?",
    "net.forwards": "observation point 'net.forwards': net has no 'forwards'; did you mean 'forward'?",
    "nets.2": "observation point 'nets.2': nets has no '2'",
    "functions.2": "observation point 'functions.2': functions has no '2'",
    "table.steps": "observation point 'table.steps': table has no 'steps'; did you mean 'step'?",
    "not_callable": "observation point 'not_callable': expected something callable, found int",
    "table.values": "observation point 'table.values': expected something callable, found int",
    "no_such_module_here:x": "observation point 'no_such_module_here:x': cannot import 'no_such_module_here'",
}


@pytest.mark.parametrize("path", BROKEN_PATHS)
def test_a_path_that_leads_nowhere_says_where_it_ends(path: str) -> None:
    with pytest.raises(DeclarationError) as caught:
        find(Owner(), path)
    assert str(caught.value).startswith(BROKEN_PATHS[path])


def test_a_function_of_the_standard_library_can_be_wrapped() -> None:
    before = json.dumps
    with attach([(find(None, "json:dumps"), lambda o, a, k: "wrapped")]):
        assert json.dumps([]) == "wrapped"
    assert json.dumps is before


def test_a_wrapper_that_somebody_kept_passes_calls_through_afterwards() -> None:
    seen: list[Any] = []
    model = SimpleNamespace(step=lambda x: x + 1)

    def around(original: Any, args: Any, kwargs: Any) -> Any:
        seen.append(args)
        return original(*args, **kwargs)

    with attach([(find(model, "step"), around)]):
        kept = model.step
        assert kept(1) == 2
    assert kept(2) == 3
    assert seen == [(1,)]


class _Machine:
    def __init__(self) -> None:
        self.state = 0

    def __call__(self, x: int) -> int:
        return x + self.state

    def reset(self, value: int) -> None:
        self.state = value


def test_a_callable_object_keeps_its_attributes_and_methods() -> None:
    machine = _Machine()
    model = SimpleNamespace(net=machine)
    with attach([(find(model, "net"), lambda original, args, kwargs: original(*args, **kwargs))]):
        model.net.reset(5)
        assert model.net(1) == 6
        model.net.state = 7
        assert model.net.state == 7
    assert machine.state == 7
    assert model.net is machine


class _Pipeline:
    def __call__(self, x: int) -> int:
        return x + 1


def test_the_call_of_an_object_is_observed_on_its_class() -> None:
    seen: list[Any] = []
    pipeline = _Pipeline()
    with attach([(find(pipeline, "__call__"), lambda original, args, kwargs: seen.append(args) or original(*args))]):
        assert pipeline(1) == 2
    assert seen == [(1,)]
    assert pipeline(1) == 2
    assert len(seen) == 1
