"""Axis sizes are bound once for a whole run, rows once a call, and messages say what was expected."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import Float, Float32, Int, Shaped, jaxtyped
from torch import Tensor

from fmcheck.errors import DeclarationError
from fmcheck.tensors import ANNOTATIONS, Latent, LogSNR, Mismatch, Scope, annotations_for, describe


def _zeros(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.zeros(shape, dtype=dtype)


def test_sizes_hold_over_calls_and_rows_within_one() -> None:
    scope = Scope({"C": 4})
    for rows in (6, 2):
        with scope.call():
            assert scope.check("velocity.x", _zeros(rows, 4, 8, 16), Latent) is None
            assert scope.check("velocity.time", _zeros(rows), LogSNR) is None
            wrong = scope.check("velocity.time", _zeros(rows + 1), LogSNR)
            assert str(wrong).startswith(
                f"velocity.time: wrong shape: expected Float32[N={rows}], found f32[{rows + 1}]"
            )
        assert "N" not in scope.sizes
    assert scope.sizes == {"C": 4, "h": 8, "w": 16}
    assert scope.check("velocity.x", _zeros(2, 4, 8, 15), Latent) is not None


def test_calls_within_calls_have_their_own_rows() -> None:
    scope = Scope()
    with scope.call():
        assert scope.check("a", _zeros(6), LogSNR) is None
        with scope.call():
            assert scope.check("b", _zeros(2), LogSNR) is None
        assert scope.check("c", _zeros(6), LogSNR) is None
        assert scope.check("d", _zeros(2), LogSNR) is not None


def test_a_failed_check_binds_nothing() -> None:
    scope = Scope({"w": 3})
    assert scope.check("x", _zeros(2, 4, 8, 9), Latent) is not None
    assert scope.sizes == {"w": 3}


def test_where_an_axis_was_bound_first_is_remembered() -> None:
    scope = Scope({"C": 4})
    scope.check("velocity.x", _zeros(2, 4, 8, 16), Latent, "velocity.x of velocity[0]")
    scope.check("velocity.x", _zeros(2, 4, 8, 16), Latent, "velocity.x of velocity[1]")
    scope.bind("h", 99, "nowhere")
    assert scope.origins == dict.fromkeys("Nhw", "velocity.x of velocity[0]")
    assert scope.sizes["h"] == 8


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 2), st.integers(1, 2)), min_size=1, max_size=6))
def test_remembering_what_fitted_changes_no_answer(shapes: list[tuple[int, int, int]]) -> None:
    """The same checks in one scope, and each in a fresh one with the sizes bound so far, agree."""
    scope = Scope()
    for rows, h, w in shapes:
        with scope.call():
            for value, hint in ((_zeros(rows, 2, h, w), Latent), (_zeros(3), LogSNR), (_zeros(rows), LogSNR)):
                before = dict(scope.sizes)
                fresh = Scope(before)
                assert scope.check("x", value, hint) == fresh.check("x", value, hint)
                assert scope.sizes == fresh.sizes


HALF = torch.float16
MISMATCHES: list[tuple[Any, Any, str, str]] = [
    (None, LogSNR, "type", "x: wrong type: expected Float32[N], found NoneType"),
    ("text", LogSNR, "type", "x: wrong type: expected Float32[N], found str"),
    (_zeros(3, 1), LogSNR, "rank", "x: wrong rank: expected Float32[N], found f32[3,1]"),
    (_zeros(3, dtype=HALF), LogSNR, "dtype", "x: wrong dtype: expected Float32[N], found f16[3]"),
    (
        _zeros(3, 5, 8, 8),
        Latent,
        "shape",
        "x: wrong shape: expected Float[N,C=4,h,w], found f32[3,5,8,8] (bound so far: C=4)",
    ),
    (_zeros(3, 4), Shaped[Tensor, "N C+1"], "shape", "x: wrong shape: expected Shaped[N,C+1], found f32[3,4]"),
    (
        _zeros(4),
        Float[Tensor, "*rest C C"],
        "shape",
        "x: wrong shape: expected Float[*rest,C=4,C=4], found f32[4] (bound so far: C=4)",
    ),
    (
        _zeros(3),
        Int[Tensor, "N"] | None,
        "shape",
        "x: wrong shape: expected jaxtyping.Int[Tensor, 'N'] | None, found f32[3]",
    ),
]


@pytest.mark.parametrize(("value", "hint", "aspect", "text"), MISMATCHES)
def test_messages(value: Any, hint: Any, aspect: str, text: str) -> None:
    mismatch = Scope({"C": 4}).check("x", value, hint)
    assert isinstance(mismatch, Mismatch)
    assert mismatch.aspect == aspect
    assert str(mismatch).split(" | None")[0] == text.split(" | None")[0]


def test_variadic_and_anonymous_axes() -> None:
    scope = Scope()
    assert scope.check("x", _zeros(1, 2, 3, 4), Float[Tensor, "N *rest w"]) is None
    assert scope.check("x", _zeros(1, 2, 7), Float[Tensor, "_ ... h"]) is None
    assert scope.check("x", _zeros(5, 7), Float[Tensor, "_rows h"]) is None
    assert scope.check("x", _zeros(5, 6), Float[Tensor, "_rows h"]) is not None
    assert scope.sizes == {"N": 1, "w": 4, "h": 7}


def test_expressions_read_bound_axes() -> None:
    scope = Scope({"B": 3})
    assert scope.check("x", _zeros(6), Float[Tensor, "2*B"]) is None
    assert scope.check("x", _zeros(3), Float[Tensor, "2*B"]) is not None


def test_unions_and_other_hints() -> None:
    scope = Scope({"B": 3})
    hint = Float32[Tensor, "B"] | Int[Tensor, "B"] | float
    assert [scope.check("x", v, hint) for v in (_zeros(3), torch.zeros(3, dtype=torch.int64), 0.5)] == [None] * 3
    assert scope.check("x", _zeros(4), hint) is not None
    assert scope.check("x", 3, int) is None
    assert scope.check("x", "3", int) is not None


def test_sizes_whose_product_no_tensor_could_have() -> None:
    scope = Scope(dict.fromkeys(["B", "C", "h", "w", "H", "W", "D", "L"], 10**6))
    assert scope.check("x", _zeros(3), LogSNR) is None


def test_a_users_own_jaxtyped_function_is_undisturbed() -> None:
    scope = Scope({"B": 3})

    @jaxtyped(typechecker=None)
    def own(x: Any) -> bool:
        assert isinstance(x, Float[Tensor, "B"])
        assert scope.check("x", _zeros(3), Float[Tensor, "B"]) is None
        return isinstance(_zeros(5), Float[Tensor, "B"])

    assert own(_zeros(5))


def test_values_in_short() -> None:
    cases = {
        "f32[2,3]": _zeros(2, 3),
        "f16[]": torch.zeros((), dtype=torch.float16),
        "bf16[1]": _zeros(1, dtype=torch.bfloat16),
        "f64[1]": _zeros(1, dtype=torch.float64),
        "i64[0]": _zeros(0, dtype=torch.int64),
        "u8[1]": _zeros(1, dtype=torch.uint8),
        "bool[1]": _zeros(1, dtype=torch.bool),
        "f32[1] on meta": torch.zeros(1, device="meta"),
        "list": [1],
        "NoneType": None,
    }
    assert {describe(value): value for value in cases.values()}.keys() == cases.keys()


def test_annotations_are_replaced_one_by_one() -> None:
    assert annotations_for({}) == {**ANNOTATIONS, "text.output@4": Latent}
    scalar = Float[Tensor, ""]
    known = annotations_for({"velocity.time": scalar})
    assert known["velocity.time"] is scalar
    assert known["velocity.x"] is ANNOTATIONS["velocity.x"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"velocity.tme": LogSNR}, "annotations: unknown tensor 'velocity.tme'; did you mean 'velocity.time'?"),
        ({3: LogSNR}, "annotations: unknown tensor 3"),
        ({"velocity.time": 3}, "annotations['velocity.time']: 3 is no type hint"),
        ({"velocity.time": "no such name"}, "annotations['velocity.time']: 'no such name' is no type hint"),
        (None, "annotations: expected a mapping; found NoneType"),
        ([], "annotations: expected a mapping; found list"),
    ],
)
def test_wrong_annotations(overrides: Any, message: str) -> None:
    with pytest.raises(DeclarationError) as caught:
        annotations_for(overrides)
    assert str(caught.value).startswith(message)
