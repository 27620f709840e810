"""Interleaved timing: two things are compared in one process, in turn, and only their ratio is reported."""

import json
import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

import fmcheck
from fmcheck.drive import tokens_of
from fmcheck.plan import Run
from fmcheck.session import Session
from fmcheck.subject import Request
from tests import threads

RESULTS = Path(__file__).parent / "results"


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Two contended threads spin on each other and measure the machine, not the code."""
    with threads.one_thread():
        yield


class Ratios:
    """Ratios of two timings taken in turn, pair by pair.

    `least` is the ratio of the fastest runs of both. A limit is broken when the lower quartile is above it: on a shared
    machine the median of equal code moves by a few hundredths.
    """

    def __init__(self, ratios: list[float], least: float) -> None:
        self.ratios = sorted(ratios)
        self.least = least

    @property
    def median(self) -> float:
        return statistics.median(self.ratios)

    def quartiles(self) -> tuple[float, float]:
        low, _, high = statistics.quantiles(self.ratios, n=4)
        return low, high

    def __str__(self) -> str:
        low, high = self.quartiles()
        return (
            f"{self.least:.3f} of the fastest runs; median of {len(self.ratios)} pairs {self.median:.3f}, "
            f"quartiles {low:.3f} to {high:.3f}"
        )


def interleave(first: Callable[[], object], second: Callable[[], object], pairs: int, warm: int = 3) -> Ratios:
    """`first / second` pair by pair; the order within a pair alternates, so that drift cancels."""
    for _ in range(warm):
        first()
        second()
    ratios, fastest = [], {first: math.inf, second: math.inf}
    for index in range(pairs):
        order = (first, second) if index % 2 else (second, first)
        spent = {}
        for function in order:
            started = time.perf_counter()
            function()
            spent[function] = time.perf_counter() - started
            fastest[function] = min(fastest[function], spent[function])
        ratios.append(spent[first] / spent[second])
    return Ratios(ratios, fastest[first] / fastest[second])


def bare_seconds(session: Session) -> float:
    """Time of the same calls without recorder, wrappers and rules."""
    total = 0.0
    for wish, made in session._runs.items():
        if not isinstance(made, Run) or made.trace.error is not None:
            continue
        model, _ = session.model(wish.case)
        inputs = tokens_of(session.subject, model, wish.case, wish.tokens)
        generator = torch.Generator().manual_seed(wish.case.seed)
        request = Request(wish.case, inputs, generator, made.trace.images)
        drive = session.subject.generate if wish.kind == "generate" else session.subject.loss
        started = time.perf_counter()
        drive(model, request)
        total += time.perf_counter() - started
    return total


@contextmanager
def result_file(name: str) -> Iterator[dict[str, object]]:
    """Figures with the versions they belong to, for `results/NAME-DEVICE.json`.

    The file is written when `FMCHECK_WRITE_RESULTS` is set: a benchmark that dirties the checkout would be run less.
    """
    device = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "cpu"
    figures: dict[str, object] = {
        "device": device,
        "processor": platform.machine(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "fmcheck": fmcheck.__version__,
        "threads": torch.get_num_threads(),
    }
    yield figures
    if not os.environ.get("FMCHECK_WRITE_RESULTS"):
        return
    RESULTS.mkdir(exist_ok=True)
    slug = device.lower().replace(" ", "-")
    (RESULTS / f"{name}-{slug}.json").write_text(json.dumps(figures, indent=2) + "\n")
