"""What crosses between this process and those that it starts: errors as they arrive, and how a process ended."""

import signal
from typing import Any

from fmcheck.errors import InternalError

__all__ = ["crossing", "ending", "opened"]


def crossing(error: Exception) -> Exception:
    """The error as it crosses to another process: of its own kind where that is ours, and without its causes."""
    kind = type(error)
    return kind(str(error)) if kind.__module__ == "fmcheck.errors" else InternalError(f"{kind.__name__}: {error}")


def opened(answer: Any) -> Any:
    """What another process answered; an error that it sent is raised here."""
    if isinstance(answer, Exception):
        raise answer
    return answer


def ending(code: int | None) -> str:
    """How a process ended, by its exit code: a number, or the name of the signal that killed it."""
    if code is None:
        return "an unknown end"
    if code >= 0:
        return f"exit code {code}"
    return signal.Signals(-code).name
