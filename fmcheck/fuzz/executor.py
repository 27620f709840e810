"""Where scenarios run: in this process, or in one of their own that may die or hang and the campaign goes on."""

import multiprocessing
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, Protocol

from fmcheck.errors import InternalError
from fmcheck.processes import ending, opened, serve
from fmcheck.scenario import Scenario
from fmcheck.trial import CRASH, HANG, MEMORY, Bench, Verdict, failure

__all__ = ["Executor", "Isolated", "Local"]


class Executor(Protocol):
    """Judges scenarios."""

    def judge(self, scenario: Scenario, *, fresh: bool) -> Verdict:
        """The verdict; `fresh` asks for new model objects."""

    def renew(self) -> None:
        """Forget the model objects that scenarios share."""

    def close(self) -> None:
        """End what was started."""


class Local:
    """In this process. What kills it or hangs it ends the campaign, whose case is on disk by then."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench

    def judge(self, scenario: Scenario, *, fresh: bool) -> Verdict:
        return self.bench.judge(scenario, fresh=fresh)

    def renew(self) -> None:
        self.bench.models.clear()

    def close(self) -> None:
        self.renew()


class Isolated:
    """In a process of its own, which is started again after it died or was killed.

    Args:
        make: returns the bench in that process. A function of a module (or a partial of one), since the process is
            spawned and imports it: CUDA does not survive a fork.
        time_limit: seconds for one scenario.
        start_limit: seconds for the first answer of a new process, which imports and builds.
    """

    def __init__(self, make: Callable[[], Bench], *, time_limit: float = 60.0, start_limit: float = 600.0) -> None:
        self._make = make
        self._limit, self._start_limit = time_limit, start_limit
        self._process: Any = None
        self._pipe: Connection | None = None

    def judge(self, scenario: Scenario, *, fresh: bool) -> Verdict:
        """The verdict; a crash and a hang are findings of their own.

        Raises:
            DeclarationError, InternalError: what the bench raised in the process.
        """
        pipe = self._running()
        try:
            pipe.send((scenario, fresh))
            if not pipe.poll(self._limit):
                self.close()
                return failure(HANG, f"no answer within the time limit of {self._limit:g} s; killed", scenario)
            answer: Verdict = opened(pipe.recv())
            return answer
        except (EOFError, OSError):
            return self._died(scenario)

    def _running(self) -> Connection:
        if self._pipe is not None:
            return self._pipe
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self._make), daemon=True)
        self._process.start()
        theirs.close()
        self._pipe = ours
        try:
            if not ours.poll(self._start_limit):
                self.close()
                raise InternalError(f"the worker process did not start within {self._start_limit:g} s")
            opened(ours.recv())
        except (EOFError, OSError) as error:
            self._process.join()
            code = self._process.exitcode
            self.close()
            raise InternalError(f"the worker process ended with {ending(code)} before the first case") from error
        return ours

    def _died(self, scenario: Scenario) -> Verdict:
        self._process.join(self._limit)
        code = self._process.exitcode
        self.close()
        if code == -signal.SIGKILL:
            # Nobody here sends it; the kernel does when memory is short.
            return failure(
                MEMORY, "the process was killed with SIGKILL, as the kernel does when memory is short", scenario
            )
        return failure(CRASH, f"the process died with {ending(code)}", scenario)

    def renew(self) -> None:
        if self._pipe is not None:
            try:
                self._pipe.send(None)
                self._pipe.recv()
            except (EOFError, OSError):
                self.close()

    def close(self) -> None:
        if self._pipe is not None:
            self._pipe.close()
        if self._process is not None:
            self._process.kill()
            self._process.join()
        self._pipe = self._process = None


def _serve(pipe: Connection, make: Callable[[], Bench]) -> None:
    """The other process: a bench that judges scenarios, and is renewed by None."""

    def made() -> Callable[[Any], Any]:
        local = Local(make())

        def answer(asked: tuple[Scenario, bool] | None) -> Any:
            if asked is None:
                local.renew()
                return "renewed"
            scenario, fresh = asked
            return local.judge(scenario, fresh=fresh)

        return answer

    serve(pipe, made)
