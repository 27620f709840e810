"""A Case is plain data: it holds only what can be asked for, and survives a text file."""

import json
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fmcheck.case import Case
from fmcheck.errors import DeclarationError

CASES = st.fixed_dictionaries(
    {},
    optional={
        "prompts": st.lists(st.text(max_size=8), min_size=1, max_size=4),
        "height": st.integers(1, 4096),
        "width": st.integers(1, 4096),
        "num_steps": st.integers(1, 1000),
        "guidance_scale": st.floats(allow_nan=False, allow_infinity=False) | st.integers(-100, 100),
        "seed": st.integers(0, 2**63 - 1),
        "dtype": st.sampled_from(["float32", "bfloat16", "float16", "float64"]),
        "device": st.sampled_from(["cpu", "cuda", "cuda:3", "meta", "mps"]),
    },
)


@given(CASES)
def test_a_valid_case_survives_a_text_file(table: dict[str, Any]) -> None:
    case = Case.from_table(table)
    again = Case.from_table(json.loads(json.dumps(case.as_table(), allow_nan=False)))
    assert again == case
    assert hash(again) == hash(case)
    assert isinstance(again.prompts, tuple)
    assert case.batch == len(case.prompts)
    assert isinstance(case.torch_dtype, torch.dtype)
    assert f"batch {case.batch}" in str(case)


HOSTILE = st.one_of(
    st.none(),
    st.booleans(),
    st.text(max_size=5),
    st.floats(),
    st.integers(),
    st.just(10**400),
    st.lists(st.none() | st.integers() | st.text(max_size=2), max_size=3),
    st.tuples(st.floats(), st.text(max_size=2)),
    st.dictionaries(st.text(max_size=2), st.integers(), max_size=2),
    st.binary(max_size=3),
    st.builds(object),
    st.sampled_from([torch.float32, torch.device("cpu"), "cuda:-1", "cuda:99999999999", "cpu:", "\ud800", {1}, {"a"}]),
)


@given(st.sampled_from(sorted(Case.__dataclass_fields__)), HOSTILE)
def test_a_wrong_value_is_refused_by_the_name_of_its_field_and_by_nothing_else(name: str, value: Any) -> None:
    refusal = _refusal(name, value)
    if refusal is None:
        case = Case(**{name: value})
        assert Case.from_table(json.loads(json.dumps(case.as_table()))) == case
    else:
        assert refusal.startswith(f"Case.{name}: expected ")


def _refusal(name: str, value: Any) -> str | None:
    try:
        Case(**{name: value})
    except DeclarationError as error:
        return str(error)
    return None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompts": "a cat"}, "Case.prompts: expected a list or tuple of strings; found 'a cat'"),
        ({"prompts": []}, "Case.prompts: expected at least one prompt; found ()"),
        ({"prompts": ["a", 3]}, "Case.prompts: expected strings; found ('a', 3)"),
        ({"height": 0}, "Case.height: expected a positive integer; found 0"),
        ({"width": 256.0}, "Case.width: expected a positive integer; found 256.0"),
        ({"num_steps": True}, "Case.num_steps: expected a positive integer; found True"),
        ({"seed": -1}, "Case.seed: expected an integer in [0, 2**63); found -1"),
        ({"seed": 2**63}, "Case.seed: expected an integer in [0, 2**63); found 9223372036854775808"),
        ({"guidance_scale": math.nan}, "Case.guidance_scale: expected a finite number; found nan"),
        ({"dtype": "half"}, "Case.dtype: expected one of float32, bfloat16, float16, float64; found 'half'"),
        ({"dtype": []}, "Case.dtype: expected one of float32, bfloat16, float16, float64; found []"),
        ({"device": 0}, "Case.device: expected a torch device such as cpu or cuda:0; found 0"),
    ],
)
def test_messages(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DeclarationError) as caught:
        Case(**changes)
    assert str(caught.value) == message


def test_an_unknown_device_names_what_torch_said() -> None:
    with pytest.raises(
        DeclarationError, match=r"Case\.device: expected a torch device .*; found 'gpu' \(Expected one of"
    ):
        Case(device="gpu")


def test_tables() -> None:
    with pytest.raises(DeclarationError, match="case: unknown key 'heigth'; did you mean 'height'"):
        Case.from_table({"heigth": 3})
    for table in (None, [], "height", 3):
        with pytest.raises(DeclarationError, match="case: expected a table"):
            Case.from_table(table)


@given(st.lists(st.text(max_size=3), min_size=1, max_size=5), st.integers(1, 12))
def test_prompts_are_cycled(prompts: list[str], batch: int) -> None:
    case = Case(prompts=tuple(prompts)).with_batch(batch)
    assert case.batch == batch
    assert all(case.prompts[i] == prompts[i % len(prompts)] for i in range(batch))


def test_changes_make_a_new_case_and_are_checked_too() -> None:
    case = Case()
    assert case.but(height=64).height == 64
    assert case.height == 256
    with pytest.raises(DeclarationError, match="at least one prompt"):
        case.with_batch(0)
    with pytest.raises(DeclarationError, match=r"Case\.num_steps"):
        case.but(num_steps=0)


def test_default_prompts_differ_in_every_row() -> None:
    prompts = Case().prompts
    assert len(set(prompts)) == len(prompts)
    assert len({len(prompt.split()) for prompt in prompts}) == len(prompts)
