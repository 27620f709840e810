"""Three families of exceptions, told apart by type, and suggestions that never fail themselves."""

import pytest

from fmcheck.case import Case
from fmcheck.errors import (
    DeclarationError,
    FmcheckError,
    InternalError,
    NotInformative,
    TensorMismatch,
    did_you_mean,
    raised,
    without_frames,
)


@pytest.mark.parametrize(
    ("kind", "builtin"), [(DeclarationError, ValueError), (TensorMismatch, TypeError), (InternalError, RuntimeError)]
)
def test_families(kind: type, builtin: type) -> None:
    assert issubclass(kind, FmcheckError)
    assert issubclass(kind, builtin)
    assert not issubclass(NotInformative, FmcheckError), "it is no error"


def test_the_nearest_name_is_suggested() -> None:
    assert did_you_mean("velocty", ["velocity", "decode"]) == "; did you mean 'velocity'?"
    assert did_you_mean("xyz", ["velocity", "decode"]) == ""
    assert did_you_mean("xyz", []) == ""


@pytest.mark.parametrize("word", [None, 3, [], {}, object(), b"velocity", float("nan")])
def test_any_word_may_be_asked_about(word: object) -> None:
    assert isinstance(did_you_mean(word, ["velocity", 3, None]), str)


def test_the_line_that_is_named_is_the_users_and_not_a_generated_constructors() -> None:
    with pytest.raises(DeclarationError) as caught:
        Case(height=-1)
    assert "<string>" not in raised(caught.value)
    assert f"{__file__}:" in raised(caught.value)


def _raise_three() -> None:
    try:
        try:
            raise KeyError("first")
        except KeyError as first:
            raise TypeError("second") from first
    except TypeError:
        raise ValueError("third")  # noqa: B904 (a context, and no cause)


def test_an_error_that_is_kept_holds_no_frames() -> None:
    with pytest.raises(ValueError, match="third") as caught:
        _raise_three()
    third = caught.value
    second = third.__context__
    assert isinstance(second, TypeError)
    chain = [third, second, second.__cause__]
    assert all(link.__traceback__ is not None for link in chain)
    without_frames(third)
    assert all(link.__traceback__ is None for link in chain)


def test_errors_that_came_from_each_other_are_an_end() -> None:
    one, other = ValueError("one"), ValueError("other")
    one.__cause__, other.__cause__ = other, one
    without_frames(one)
    without_frames(None)
