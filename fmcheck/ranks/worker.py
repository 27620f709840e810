"""The other process: one rank, in a process group as `torchrun` makes it."""

import multiprocessing
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import FileStore  # type: ignore[attr-defined]

from fmcheck.drive import build_model
from fmcheck.errors import DeclarationError
from fmcheck.processes import serve
from fmcheck.ranks.making import failed_share, share_of
from fmcheck.ranks.share import Share, packed
from fmcheck.spec import FlowSpec
from fmcheck.subject import Subject
from fmcheck.wish import Wish

__all__ = ["Order", "serve_rank"]


@dataclass(frozen=True)
class Order:
    """A run that the ranks are asked for.

    Attributes:
        spec: in the place of the loaded subject's.
        meeting: a new file, at which the ranks of the run find each other.
        port: free on this machine, for code that makes a group of its own.
        result: where the tensors of the share are written.
    """

    wish: Wish
    spec: FlowSpec
    meeting: Path
    port: int
    result: Path


def serve_rank(pipe: Connection, load: Callable[[], Subject], rank: int, folder: str) -> None:
    """Answer orders until the pipe closes. The folder goes when the parent has died and cannot remove it."""
    threading.Thread(target=_end_with_parent, args=(folder,), daemon=True).start()
    # The parent's standard output is a report, which may be JSON.
    sys.stdout = sys.stderr
    if "OMP_NUM_THREADS" not in os.environ:
        # As torchrun does: the ranks share the cores of the machine.
        torch.set_num_threads(1)
    serve(pipe, lambda: _Worker(load(), rank).answer)


def _end_with_parent(folder: str) -> None:
    """A rank may wait for another one for half an hour, and a killed parent kills nobody."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(1)


class _Worker:
    def __init__(self, subject: Subject, rank: int) -> None:
        self._subject, self._rank = subject, rank
        self._model: Any = None

    def answer(self, order: Order) -> Share:
        subject, wish = self._subject.but(spec=order.spec), order.wish
        if wish.case.device.startswith("cuda"):
            wish = replace(wish, case=wish.case.but(device=f"cuda:{self._rank}"))
        with _group(order, self._rank, torch.device(wish.case.device)):
            share = self._sharded(subject, wish) if wish.kind == "shard" else self._plain(subject, wish)
            _see_off(share)
            return packed(share, order.result)

    def _plain(self, subject: Subject, wish: Wish) -> Share:
        # Loading weights can cost more than all runs, so that one object serves them all.
        if self._model is None:
            self._model = build_model(subject, wish.case)
        return share_of(subject, self._model, wish, self._rank)

    def _sharded(self, subject: Subject, wish: Wish) -> Share:
        assert subject.shard is not None
        model = build_model(subject, wish.case)
        mesh = dist.device_mesh.init_device_mesh(torch.device(wish.case.device).type, (wish.ranks,))
        try:
            subject.shard(model, mesh)
        except Exception as error:
            failed = failed_share(self._rank, error)
            return replace(failed, error=f"shard raised {failed.error}")
        return share_of(subject, model, wish, self._rank)


@contextmanager
def _group(order: Order, rank: int, device: torch.device) -> Iterator[None]:
    """The process group of one run, and the environment that `torchrun` would give this rank.

    Raises:
        DeclarationError: there is none: the backend is missing, or cannot connect.
    """
    ranks = order.wish.ranks
    here = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks, "GROUP_RANK": 0}
    os.environ.update({name: str(value) for name, value in here.items()})
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(order.port))
    backend = "nccl" if device.type == "cuda" else "gloo"
    if device.type == "cuda":
        torch.cuda.set_device(device)
    try:
        # A file and no port, which somebody else could have taken in the meantime.
        store = FileStore(str(order.meeting), ranks)
        dist.init_process_group(backend, store=store, rank=rank, world_size=ranks)
        _gather(store, rank, ranks)
    except (RuntimeError, ValueError) as error:
        raise DeclarationError(f"no process group of {ranks} ranks with {backend} on this machine: {error}") from error
    try:
        yield
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def _gather(store: FileStore, rank: int, ranks: int) -> None:
    """Wait until every rank has its group: who fails at once and leaves cuts off a rank that still connects."""
    store.set(f"here-{rank}", "")
    store.wait([f"here-{other}" for other in range(ranks)])


def _see_off(share: Share) -> None:
    """Wait for the others: who leaves first would cut off a rank that is still reading what was sent to it."""
    if not share.error:
        # Nobody is left to wait for where another rank has failed, which it reports itself.
        with suppress(RuntimeError):
            dist.barrier()
