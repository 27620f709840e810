"""Processes that answer over a pipe: how one serves, how errors cross, and how one ended."""

import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from fmcheck.errors import InternalError

__all__ = ["crossing", "ending", "leave_interrupts", "opened", "serve"]


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


def leave_interrupts() -> None:
    """Ignore interrupts, which go to the whole group of processes: the parent decides what becomes of this one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def serve(pipe: Connection, make: Callable[[], Callable[[Any], Any]]) -> None:
    """In the other process: make what answers, say "ready", and answer until the pipe closes.

    What `make` or an answer raises crosses as an error; after the first there is nothing to serve.
    """
    leave_interrupts()
    try:
        answer = make()
    except Exception as error:
        pipe.send(crossing(error))
        return
    pipe.send("ready")
    while True:
        try:
            order = pipe.recv()
        except EOFError:
            return
        try:
            answered: Any = answer(order)
        except Exception as error:
            answered = crossing(error)
        pipe.send(answered)
