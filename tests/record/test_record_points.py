"""Arguments are found however the caller passed them; outputs are found and replaced in every usual container."""

import functools
from collections import OrderedDict, UserDict, namedtuple
from dataclasses import dataclass
from types import MappingProxyType, SimpleNamespace
from typing import Any

import pytest
import torch

from fmcheck.errors import DeclarationError
from fmcheck.record.points import Arguments, Parameters, find_output, lengths_in, replace_output


def _call(x: Any, time: Any = 5, *rest: Any, null: Any = None, **more: Any) -> None: ...


def _arguments(function: Any, *args: Any, **kwargs: Any) -> Arguments:
    return Arguments(Parameters(function), args, kwargs)


def test_by_name_and_position_whatever_the_caller_did() -> None:
    for arguments in (_arguments(_call, 1, 2, null=3), _arguments(_call, time=2, null=3, x=1)):
        assert [arguments.get(s) for s in ("x", "time", "null")] == [1, 2, 3]
        assert [arguments.get(s) for s in (0, 1)] == [1, 2]
        assert arguments.by_name() == {"x": 1, "time": 2, "null": 3}


def test_what_was_not_passed() -> None:
    arguments = _arguments(_call, 1)
    assert arguments.get("time") is None
    assert arguments.get("time", "absent") == "absent"
    assert arguments.get(None, "absent") == "absent"
    assert arguments.get(7) is None
    assert arguments.get("null") is None
    assert arguments.effective("time") == 5
    assert arguments.effective(1) == 5
    assert arguments.effective("x") == 1
    assert arguments.effective(None) is None


def test_further_positions_and_keywords() -> None:
    arguments = _arguments(_call, 1, 2, 30, 40, other=50)
    assert (arguments.get(2), arguments.get(3), arguments.get("other")) == (30, 40, 50)
    assert arguments.by_name() == {"x": 1, "time": 2, "2": 30, "3": 40, "other": 50}


def test_callables_without_a_signature() -> None:
    arguments = _arguments(type("C", (), {"__signature__": 3}), 1, 2, k=3)
    assert (arguments.get(1), arguments.get("k"), arguments.get("x")) == (2, 3, None)


def test_partials_and_methods() -> None:
    partial = functools.partial(_call, 1)
    assert _arguments(partial, 2).get("time") == 2
    net = torch.nn.Linear(1, 1)
    assert _arguments(net.forward, 9).get("input") == 9
    assert Parameters(torch.nn.Linear.forward, unbound=True).positional == ["input"]


def test_set_replaces_where_the_value_was_passed() -> None:
    arguments = _arguments(_call, 1, time=2)
    arguments.set("x", 10)
    arguments.set(1, 20)
    assert (arguments.args, arguments.kwargs) == ([10], {"time": 20})


def test_set_passes_a_parameter_that_was_left_at_its_default() -> None:
    arguments = _arguments(_call, 1)
    arguments.set("null", 7)
    arguments.set(1, 8)
    assert (arguments.args, arguments.kwargs) == ([1], {"null": 7, "time": 8})


def test_set_refuses_what_the_call_does_not_have() -> None:
    with pytest.raises(DeclarationError, match="argument 'steps' was not passed to the observed call, which has none"):
        _arguments(_call, 1).set("steps", 1)


@pytest.mark.parametrize(
    ("when", "fits"),
    [
        ({}, True),
        ({"x": "decode"}, True),
        ({"x": "encode"}, False),
        ({"time": 5}, True),
        ({"time": 6}, False),
        ({"absent": None}, False),
        ({"null": torch.ones(2)}, False),
    ],
)
def test_when_compares_passed_values_and_defaults(when: dict, fits: bool) -> None:
    assert _arguments(_call, "decode").match(when) is fits


def test_when_never_asks_a_tensor_for_its_truth() -> None:
    assert not _arguments(_call, torch.ones(2)).match({"x": torch.zeros(2)})
    assert not _arguments(_call, torch.ones(2)).match({"x": "decode"})


T, U, NEW = torch.zeros(2), torch.ones(2), torch.full((2,), 5.0)
Pair = namedtuple("Pair", "first second")


@dataclass
class Plain:
    note: str
    sample: torch.Tensor


@dataclass(frozen=True, slots=True)
class Sealed:
    sample: torch.Tensor


class AttributeDict(OrderedDict):
    """Entries are attributes too, and integers index them, as in transformers."""

    def __init__(self, **entries: Any) -> None:
        super().__init__(entries)
        self.__dict__.update(entries)

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__(key) if isinstance(key, str) else list(self.values())[key]


CONTAINERS = {
    "tuple": (("a", T, U), None, T),
    "tuple by index": ((T, U), 1, U),
    "list": ([T, U], None, T),
    "list by index": ([T, U], 1, U),
    "named tuple": (Pair("a", U), None, U),
    "named tuple by name": (Pair(T, U), "second", U),
    "named tuple by index": (Pair(T, U), 1, U),
    "dict": ({"note": 1, "sample": T}, None, T),
    "dict by key": ({"other": T, "sample": U}, "sample", U),
    "dict with a key like a method": ({"other": T, "values": U}, "values", U),
    "user dict": (UserDict({"other": T, "sample": U}), "sample", U),
    "dataclass": (Plain("a", T), None, T),
    "dataclass by attribute": (Plain("a", T), "sample", T),
    "sealed dataclass": (Sealed(T), None, T),
    "object": (SimpleNamespace(a=1, sample=T), "sample", T),
    "object's first tensor": (SimpleNamespace(a=1, sample=T, later=U), None, T),
    "attribute dict": (AttributeDict(other=T, sample=U), "sample", U),
    "attribute dict by index": (AttributeDict(other=T, sample=U), 1, U),
    "struct sequence": (torch.stack([T, U]).max(dim=0), None, None),
    "struct sequence by name": (torch.stack([T, U]).max(dim=0), "indices", None),
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_an_output_is_found_and_replaced_in_a_copy(name: str) -> None:
    returned, selector, tensor = CONTAINERS[name]
    found = find_output(returned, selector)
    assert found is not None
    assert tensor is None or found is tensor
    changed = replace_output(returned, selector, NEW)
    assert type(changed) is type(returned)
    assert find_output(changed, selector) is NEW
    assert find_output(returned, selector) is found, "the original is as it was"


def test_both_views_of_an_attribute_dict_are_replaced() -> None:
    changed = replace_output(AttributeDict(sample=T, other=U), "sample", NEW)
    assert changed["sample"] is NEW
    assert changed.sample is NEW
    assert changed.other is U


def test_a_tensor_is_its_own_output_whatever_the_selector() -> None:
    for selector in (None, 0, "sample", "data"):
        assert find_output(T, selector) is T
        assert replace_output(T, selector, NEW) is NEW


@pytest.mark.parametrize("returned", [None, 3, "text", (), [], {}, (1, "a"), {"a": 1}, Plain, object(), (3, [T])])
def test_no_output(returned: Any) -> None:
    assert find_output(returned, None) is None
    assert find_output(returned, 7) is None
    assert find_output(returned, "missing") is None
    with pytest.raises(DeclarationError, match="no tensor in what an observed call returned"):
        replace_output(returned, None, NEW)


LAYERS = tuple(torch.full((3, 5, 7), float(layer)) for layer in range(4))


@pytest.mark.parametrize("kind", [tuple, list])
@pytest.mark.parametrize("count", [4, 3])
def test_layers_of_a_text_encoder_have_rows_for_the_prompts(kind: type, count: int) -> None:
    returned = SimpleNamespace(hidden_states=kind(LAYERS[:count]))
    found = find_output(returned, "hidden_states", None, 3)
    assert found is not None
    assert found.shape == (3, count, 5, 7)
    assert found[1].unique(dim=1)[:, 0, 0].tolist() == list(range(count)), "every row has every layer"
    changed = replace_output(returned, "hidden_states", found + 1, None, 3).hidden_states
    assert type(changed) is kind
    assert [layer.shape for layer in changed] == [(3, 5, 7)] * count
    assert [float(layer.mean()) for layer in changed] == [layer + 1.0 for layer in range(count)]
    assert [float(layer.mean()) for layer in returned.hidden_states] == list(range(count))


def test_tokens_of_each_prompt_in_a_tuple_are_rows() -> None:
    rows = SimpleNamespace(tokens=tuple(torch.full((5, 7), float(row)) for row in range(3)))
    found = find_output(rows, "tokens", None, 3)
    assert found is not None
    assert found.shape == (3, 5, 7)
    square = SimpleNamespace(tokens=tuple(torch.full((3, 7), float(row)) for row in range(3)))
    found = find_output(square, "tokens", None, 3)
    assert found is not None
    assert found[:, 0, 0].tolist() == [0, 1, 2], "as many tokens as prompts"


def test_masks_tell_how_many_tokens_count() -> None:
    mask = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 0]])
    nested = {"encoder": [mask, (mask.bool(),)], "ids": mask * 5, "bias": mask.float(), "flags": mask[0]}
    assert list(lengths_in(nested)) == [3, 3]
    assert list(lengths_in([mask.to("meta"), torch.zeros(0, 4, dtype=torch.bool), None])) == []


def test_a_container_that_cannot_be_changed_says_so() -> None:
    with pytest.raises(DeclarationError, match="mappingproxy"):
        replace_output(MappingProxyType({"sample": T}), "sample", NEW)
