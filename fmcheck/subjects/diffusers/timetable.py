"""Calls of a pipeline that end where its network would begin: they encode the text and set the scheduler."""

import contextlib
import copy
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch

from fmcheck.case import Case
from fmcheck.record.attach import attach, find
from fmcheck.subjects.diffusers.calling import Calling

__all__ = ["Timetable", "warm_up"]


class _Begun(Exception):
    """Ends a call of the pipeline at the first call of its network."""


def _prelude(pipe: Any, network: str, calling: Calling, size: tuple[int, int], steps: int) -> None:
    """Runs a call up to the network, the caller's generators left alone."""

    def stop(*_: Any) -> Any:
        raise _Begun

    generator = torch.Generator(getattr(pipe, "_execution_device", "cpu")).manual_seed(0)
    with torch.random.fork_rng(devices=[]), attach([(find(pipe, network), stop)]), contextlib.suppress(_Begun):
        calling(pipe, ["a"], size=size, steps=steps, scale=1.0, generator=generator)


def warm_up(pipe: Any, network: str, calling: Calling, size: tuple[int, int]) -> None:
    """Lets the text encoders do what they do once: transformers puts hooks into them at their first call, for good.

    A check restores a model after every run, and hooks that it takes away would not come back.
    """
    scheduler = copy.deepcopy(pipe.scheduler)
    _prelude(pipe, network, calling, size, 2)
    pipe.scheduler = scheduler


class Timetable:
    """`time_edges(case)`: `K + 1` flow times, `1 - sigma` of what the pipeline sets its scheduler to for the case.

    For grids that FlowSpec has no words for: declared as the pipeline itself has them, so that their use is checked.
    """

    def __init__(self, fresh: Callable[[], Any], network: str, calling: Calling, multiple: int) -> None:
        self._fresh, self._network, self._calling, self._multiple = fresh, network, calling, multiple
        self._pipe: Any = None
        self._of = lru_cache(maxsize=256)(self._read)

    def __call__(self, case: Case) -> list[float]:
        # Rules also ask for sizes that the pipeline refuses; the grid of the next one below is as good as any.
        height, width = (max(side // self._multiple, 1) * self._multiple for side in (case.height, case.width))
        return list(self._of(height, width, case.num_steps))

    def _read(self, height: int, width: int, steps: int) -> tuple[float, ...]:
        if self._pipe is None:
            self._pipe = self._fresh()
            self._pipe.set_progress_bar_config(disable=True)
        _prelude(self._pipe, self._network, self._calling, (height, width), steps)
        return tuple(1.0 - float(sigma) for sigma in torch.as_tensor(self._pipe.scheduler.sigmas).double())
