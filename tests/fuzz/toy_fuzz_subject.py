"""Toy pipelines with one deliberate fault each, which only some cases show. Tests copy this file as `toy_fuzz.py`."""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from fmcheck import Case, Request, Subject
from fmcheck.repro import read
from tests.cli.toy_subject import Toy, make

# The seeds of `ending`, and how its `generate` ends.
ABORT, HANG, MEMORY, EXIT, UNBUILDABLE = 1001, 1002, 1003, 1004, 1005


class WrongForSquares(Toy):
    """Guidance is one too strong where the latent is square and larger than one cell."""

    def generate(self, request: Request) -> torch.Tensor:
        self.weight_error = float(request.height == request.width > 8)
        return super().generate(request)


class Remembering(Toy):
    """The first height is kept in the object, and another one gives pictures of that height."""

    height = 0

    def generate(self, request: Request) -> torch.Tensor:
        self.height = self.height or request.height
        return super().generate(request)[:, :, : self.height]


def _ended(model: Toy, request: Request) -> torch.Tensor:
    ends: dict[int, Callable[[], object]] = {
        ABORT: os.abort,
        HANG: lambda: time.sleep(300),
        MEMORY: _no_memory,
        EXIT: lambda: sys.exit(3),
    }
    ends.get(request.case.seed, lambda: None)()
    return model.generate(request)


def _no_memory() -> None:
    raise MemoryError("no 3 TiB here")


def _built(case: Case) -> Toy:
    if case.seed == UNBUILDABLE:
        raise RuntimeError("no checkpoint")
    return Toy()


def _looking(model: Toy, request: Request) -> torch.Tensor:
    """Raise unless this very case is on disk by now."""
    (path,) = Path(os.environ["TOY_SPOOL"]).glob("under-way-*.fmcheck.toml")
    scenario = read(path).scenario
    if request.case not in [call.case for call in scenario.calls]:
        raise RuntimeError(f"{request.case} is under way, and on disk is {scenario}")
    with (Path(os.environ["TOY_SPOOL"]).parent / "looked").open("a") as file:
        file.write("x")
    return model.generate(request)


subject = make("toy")
squares = make("toy that is wrong for squares", build=lambda case: WrongForSquares())
remembering = make("toy that remembers", build=lambda case: Remembering())
ending = make("toy that ends", build=_built, generate=_ended)
looking = make("toy that looks", generate=_looking)
unbuildable = make("no toy", build=lambda case: _built(case.but(seed=UNBUILDABLE)))


def refusing() -> Subject:
    """A subject whose tokenizer takes no empty prompt."""

    def tokenize(model: Toy, prompts: list[str]) -> dict[str, torch.Tensor]:
        if "" in prompts:
            raise ValueError("an empty prompt")
        return {"input_ids": torch.ones(len(prompts), 1, dtype=torch.long)}

    return make("toy that refuses").but(tokenize=tokenize)
