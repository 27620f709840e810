"""Subjects whose ranks do what ranks do: agree on a number, wait for ever, die. Imported by name in their processes."""

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from fmcheck import Request, Subject
from tests.cli import toy_subject

Returned = tuple[Any, list[int]]
VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")


def in_turn(model: toy_subject.Toy, request: Request, rank: int, world_size: int) -> Returned:
    """Every prompt with a generator seeded by its index."""
    indices = list(range(rank, len(request.prompts), world_size))
    return [_one(model, request, index) for index in indices], indices


def _one(model: toy_subject.Toy, request: Request, index: int) -> Tensor:
    case = request.case.but(prompts=(request.prompts[index],))
    return model.generate(Request(case, {}, torch.Generator().manual_seed(request.case.seed + index)))[0]


def _then(act: Callable[[int], object]) -> Callable[..., Returned]:
    """The ordinary part after something that depends on the rank; one process alone does nothing of the kind."""

    def part(model: toy_subject.Toy, request: Request, rank: int, world_size: int) -> Returned:
        if world_size > 1:
            act(rank)
        return in_turn(model, request, rank, world_size)

    return part


def _sleep(rank: int) -> None:
    if rank == 1:
        time.sleep(400)


def _skip_collective(rank: int) -> None:
    if rank == 0:
        dist.all_reduce(torch.ones(1))


def _raise(rank: int) -> None:
    if rank == 1:
        raise ValueError("prompt 3 is empty")
    dist.all_reduce(torch.ones(1))


def _abort(rank: int) -> None:
    if rank == 1:
        os.abort()


def _kill(rank: int) -> None:
    if rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)


def _leave(rank: int) -> None:
    if rank == 1:
        raise SystemExit(3)


def _exhaust(rank: int) -> None:
    raise MemoryError("no 3 TiB here")


def _report(model: toy_subject.Toy, request: Request, rank: int, world_size: int) -> Returned:
    """One picture whose values are what the rank sees of its group."""
    total = torch.tensor(float(rank + 1))
    dist.all_reduce(total)
    seen = [float(os.environ[name]) for name in VARIABLES]
    port = float(os.environ["MASTER_ADDR"] == "127.0.0.1" and int(os.environ["MASTER_PORT"]) > 0)
    numbers = [dist.get_rank(), dist.get_world_size(), float(total), torch.get_num_threads(), port, *seen]
    _one(model, request, 0)
    return torch.tensor(numbers).reshape(1, 1, 1, -1), [rank]


def _single(model: toy_subject.Toy, request: Request, rank: int, world_size: int) -> Any:
    return _one(model, request, 0)


def _subject(part: Callable[..., Any], **fields: Any) -> Subject:
    return toy_subject.make("toy on ranks").but(generate_rank=part, **fields)


clean = _subject(in_turn)
reporting = _subject(_report)
hanging = _subject(_then(_sleep))
skipping = _subject(_then(_skip_collective))
raising = _subject(_then(_raise))
aborting = _subject(_then(_abort))
killed = _subject(_then(_kill))
leaving = _subject(_then(_leave))
exhausted = _subject(_then(_exhaust))
no_pair = _subject(_single)


def _no_sharding(model: toy_subject.Toy, mesh: Any) -> None:
    raise NotImplementedError(f"no heads for {mesh.size()} ranks")


unshardable = _subject(in_turn, shard=_no_sharding)
unbuildable = _subject(in_turn, build=lambda case: {}["weights"])
