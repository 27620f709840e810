"""The worker processes of a session: started at the first run that needs them, and ended with it, whatever happens."""

import atexit
import multiprocessing
import pickle
import signal
import socket
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch

from fmcheck.case import Case
from fmcheck.errors import DeclarationError, InternalError
from fmcheck.processes import ending, opened
from fmcheck.ranks.share import PROMPTS, Share, unpacked
from fmcheck.ranks.worker import Order, serve_rank
from fmcheck.spec import FlowSpec
from fmcheck.subject import Subject
from fmcheck.values import is_count
from fmcheck.wish import Wish

__all__ = ["Ranks"]

# Seconds for which the other ranks are waited for once one has failed: they may be waiting for it.
_GRACE = 10.0


class Ranks:
    """Processes that make runs in one process group, as `torchrun` would start them on this machine.

    A context manager: at its end, and at that of the interpreter, all processes are gone and so are their files.

    Args:
        load: returns the subject in a process of its own: a function of a module or a partial of one, since subjects
            hold functions that cannot be sent. None where there is none.
        count: how many; 1 for none at all.
        time_limit: seconds for one run, the building of the model included.
        start_limit: seconds for the start of the processes, which import and load.

    Raises:
        DeclarationError: a count that is none, or one for which there are not prompts enough.
    """

    def __init__(
        self,
        load: Callable[[], Subject] | None = None,
        count: int = 1,
        *,
        time_limit: float = 600.0,
        start_limit: float = 600.0,
    ) -> None:
        if not is_count(count):
            raise DeclarationError(f"nproc: expected a number of processes from 1; found {count!r}")
        if count > PROMPTS:
            raise DeclarationError(
                f"nproc {count}: expected at most {PROMPTS}, the number of prompts that the ranks are given to share"
            )
        self.count = count
        self._load, self._limit, self._start_limit = load, time_limit, start_limit
        self._processes: list[Any] = []
        self._pipes: list[Connection] = []
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._made = 0

    @property
    def refusal(self) -> str:
        """Why there are no runs on several ranks; empty when there can be."""
        if self.count == 1:
            return "runs with several processes only: --nproc 2"
        if self._load is None:
            return "a process of its own has no way to this subject: name it as package.module:attribute"
        return ""

    def check(self, case: Case) -> None:
        """Refuse devices on which so many ranks have no place.

        Raises:
            DeclarationError: fewer GPUs than ranks, or a device that has no process groups.
        """
        device = torch.device(case.device).type
        if self.count == 1 or device == "cpu":
            return
        if device != "cuda":
            raise DeclarationError(f"nproc {self.count}: runs on several ranks need cpu or cuda; found {device!r}")
        if torch.cuda.device_count() < self.count:
            raise DeclarationError(
                f"nproc {self.count}: this machine has {torch.cuda.device_count()} GPUs, and every rank needs its own; "
                "use --device cpu or fewer ranks"
            )

    def run(self, wish: Wish, spec: FlowSpec) -> tuple[Share, ...]:
        """The shares of all ranks of a run; what ended a process, or kept it from an answer, is in them as an error.

        Raises:
            DeclarationError, NotInformative, InternalError: what a process raised.
        """
        try:
            return self._run(wish, spec)
        except BaseException:
            # Whoever is left may be waiting for one that is not.
            self.close()
            raise

    def _run(self, wish: Wish, spec: FlowSpec) -> tuple[Share, ...]:
        folder = self._started()
        self._made += 1
        meeting, port = folder / f"meeting-{self._made}", _free_port()
        results = [folder / f"share-{rank}.safetensors" for rank in range(wish.ranks)]
        for pipe, result in zip(self._pipes, results, strict=False):
            pipe.send(Order(wish, spec, meeting, port, result))
        shares = self._collected(wish.ranks)
        if any(share.error for share in shares):
            self.close()
            return tuple(shares)
        return tuple(unpacked(share, result) for share, result in zip(shares, results, strict=True))

    def _collected(self, ranks: int) -> list[Share]:
        shares: dict[int, Share] = {}
        waiting = {self._pipes[rank]: rank for rank in range(ranks)}
        end, failed = time.monotonic() + self._limit, None
        while waiting:
            ready = wait(list(waiting), max(0.0, end - time.monotonic()))
            if not ready:
                for rank in waiting.values():
                    shares[rank] = Share(rank=rank, error=self._silence(failed), ended=time.time())
                break
            for pipe in ready:
                assert isinstance(pipe, Connection)
                rank = waiting.pop(pipe)
                shares[rank] = self._answer(pipe, rank)
                if shares[rank].error and failed is None:
                    end, failed = min(end, time.monotonic() + _GRACE), rank
        return [shares[rank] for rank in range(ranks)]

    def _silence(self, failed: int | None) -> str:
        if failed is not None:
            return f"no answer within {_GRACE:g} s after rank {failed} had failed; killed"
        return (
            f"no answer within the time limit of {self._limit:g} s; killed. Ranks wait for each other where not all "
            "of them call a collective"
        )

    def _answer(self, pipe: Connection, rank: int) -> Share:
        try:
            share: Share = opened(pipe.recv())
            return share
        except (EOFError, OSError):
            self._processes[rank].join(_GRACE)
            code = self._processes[rank].exitcode
            # Nobody here sends SIGKILL; the kernel does when memory is short.
            short, text = code == -signal.SIGKILL, f"the process died with {ending(code)}"
            return Share(rank=rank, error=text, exhausted=short, ended=time.time())

    def _started(self) -> Path:
        if self._folder is not None:
            return Path(self._folder.name)
        self._folder = tempfile.TemporaryDirectory(prefix="fmcheck-ranks-", ignore_cleanup_errors=True)
        # Registered after multiprocessing's own, which would wait for the processes, and therefore called before it.
        atexit.register(self.close)
        context = multiprocessing.get_context("spawn")
        for rank in range(self.count):
            ours, theirs = context.Pipe()
            # No daemon, which may have no children: a data loader starts some.
            process = context.Process(target=serve_rank, args=(theirs, self._load, rank, self._folder.name))
            try:
                process.start()
            except (pickle.PicklingError, AttributeError, TypeError) as error:
                raise DeclarationError(
                    "nproc: expected a function of a module (or a partial of one) that another process can import "
                    f"and call for the subject; found {self._load!r} ({error})"
                ) from error
            self._processes.append(process)
            self._pipes.append(ours)
            theirs.close()
        self._greet()
        return Path(self._folder.name)

    def _greet(self) -> None:
        end = time.monotonic() + self._start_limit
        for rank, pipe in enumerate(self._pipes):
            try:
                if not pipe.poll(max(0.0, end - time.monotonic())):
                    raise InternalError(f"rank {rank} did not start within {self._start_limit:g} s")
                opened(pipe.recv())
            except (EOFError, OSError) as error:
                self._processes[rank].join(_GRACE)
                code = ending(self._processes[rank].exitcode)
                raise InternalError(f"the process of rank {rank} ended with {code} before its first run") from error

    def close(self) -> None:
        """End the processes and remove their files. A later run starts others."""
        atexit.unregister(self.close)
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.join()
        for pipe in self._pipes:
            pipe.close()
        self._processes, self._pipes = [], []
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def __enter__(self) -> "Ranks":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
