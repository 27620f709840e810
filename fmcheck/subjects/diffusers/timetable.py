"""Flow times that a pipeline's own scheduler is set to, for grids that FlowSpec has no words for."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch

from fmcheck.case import Case
from fmcheck.record.attach import attach, find
from fmcheck.subjects.diffusers.calling import Calling

__all__ = ["Timetable"]


class _Set(Exception):
    """Ends a call of the pipeline once its scheduler is set."""


class Timetable:
    """`time_edges(case)`: `K + 1` flow times, `1 - sigma` of what the pipeline sets its scheduler to for the case."""

    def __init__(self, fresh: Callable[[], Any], network: str, calling: Calling) -> None:
        self._fresh, self._network, self._calling = fresh, network, calling
        self._pipe: Any = None
        self._of = lru_cache(maxsize=256)(self._read)

    def __call__(self, case: Case) -> list[float]:
        return list(self._of(case.height, case.width, case.num_steps))

    def _read(self, height: int, width: int, steps: int) -> tuple[float, ...]:
        if self._pipe is None:
            self._pipe = self._fresh()
            self._pipe.set_progress_bar_config(disable=True)

        def stop(*_: Any) -> Any:
            raise _Set

        size, generator = (height, width), torch.Generator().manual_seed(0)
        with torch.random.fork_rng(devices=[]), attach([(find(self._pipe, self._network), stop)]):
            try:
                self._calling(self._pipe, ["a"], size=size, steps=steps, scale=1.0, generator=generator)
            except _Set:
                pass
        return tuple(1.0 - float(sigma) for sigma in torch.as_tensor(self._pipe.scheduler.sigmas).double())
