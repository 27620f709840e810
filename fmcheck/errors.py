"""The exception families: the model is wrong, the declaration is wrong, fmcheck is wrong."""

import difflib
import traceback
from collections.abc import Callable, Iterable, Mapping

__all__ = [
    "DeclarationError",
    "FmcheckError",
    "ForeignRuleError",
    "InternalError",
    "NotInformative",
    "TensorMismatch",
    "did_you_mean",
    "missing",
    "raised",
    "only_keys",
    "without_frames",
]


class FmcheckError(Exception):
    """Base class of everything that fmcheck raises on purpose."""


class DeclarationError(FmcheckError, ValueError):
    """The declaration is wrong: a subject, spec, case, configuration table or command line argument.

    Usual causes: a dotted path that does not exist on the model, an unknown key, a value of the
    wrong type. The command line answers it with exit code 2.
    """


class TensorMismatch(FmcheckError, TypeError):
    """The model is wrong: a tensor crossed a wrapped boundary with another shape, dtype or device than declared.

    Raised only by models wrapped with :func:`fmcheck.wrap`; the recorder notes the same fact instead of raising.
    """


class InternalError(FmcheckError, RuntimeError):
    """fmcheck itself is wrong: a rule or the recorder broke its own contract. Please report it."""


class ForeignRuleError(InternalError):
    """A rule of another package is wrong: it raised, or yielded something that is no evidence. Names package and line.

    A kind of :class:`InternalError` since it says as little about the model; the report of the other rules stands.
    """


def only_keys(table: object, what: str, known: Iterable[str]) -> None:
    """Refuse anything but a table whose keys are all known; `what` leads the message.

    Raises:
        DeclarationError: no mapping, or an unknown key; names the nearest known one.
    """
    if not isinstance(table, Mapping):
        raise DeclarationError(f"{what}: expected a table; found {type(table).__name__}")
    known = tuple(known)
    for key in table:
        if key not in known:
            raise DeclarationError(f"{what}: unknown key {key!r}{did_you_mean(key, known)}")


# Parts of the names of files that no user wrote; dataclasses make their constructors in a "<string>".
_NOT_THEIRS = ("site-packages", "<frozen", "<string>", "/fmcheck/", "/lib/")


def did_you_mean(word: object, known: Iterable[object]) -> str:
    """`"; did you mean 'x'?"` for the nearest of `known`, or an empty string when nothing is near."""
    near = difflib.get_close_matches(str(word), [str(name) for name in known], n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""


def raised(error: BaseException) -> str:
    """`raised KeyError: 'weights' (checks.py:12)`: what the user's code raised, and the last line outside libraries."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if not any(part in f.filename for part in _NOT_THEIRS)]
    place = f" ({own[-1].filename}:{own[-1].lineno})" if own else ""
    return f"raised {type(error).__name__}: {error}{place}"


def without_frames(error: BaseException | None) -> None:
    """Take the tracebacks off an error and what it came from, in place.

    An error that is kept on a record would keep the locals of every frame it passed, the record among them: a cycle
    of gigabytes that only Python's rare full collections find.
    """
    seen: set[int] = set()
    chain = [error]
    while chain:
        link = chain.pop()
        if link is not None and id(link) not in seen:
            seen.add(id(link))
            link.__traceback__ = None
            chain += [link.__cause__, link.__context__]


class NotInformative(Exception):
    """Not an error: the premise of a rule does not hold in a run, so the run says nothing about it. Carries why."""


def missing(question: Callable[[], object]) -> str | None:
    """Why a question has no answer; None when it has one."""
    try:
        question()
    except NotInformative as reason:
        return str(reason)
    return None
