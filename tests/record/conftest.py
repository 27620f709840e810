"""Fixtures of the recorder's specification: subjects made of plain functions, and the tiny model."""

import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy
import pytest
import torch

from fmcheck.case import Case
from fmcheck.record.recorder import record
from fmcheck.record.trace import Trace
from fmcheck.spec import FlowSpec
from fmcheck.subject import Subject
from fmcheck.subjects.tiny import subject as tiny_subject

SMALL_SPEC = FlowSpec(
    latent_channels=2, downsampling=2, image_channels=1, time_argument="t", guidance_layout="separate"
)
SMALL_CASE = Case(prompts=("one", "two", "three"), height=4, width=6, num_steps=2, guidance_scale=0.0)


def make_subject(generate: Callable[..., Any], **parts: Any) -> Subject:
    """A subject around `generate(model, request)`; `velocity` is an attribute of the model."""
    defaults = {"name": "toy", "velocity": "velocity", "spec": SMALL_SPEC, "case": SMALL_CASE}
    return Subject(build=lambda case: None, generate=generate, **{**defaults, **parts})


def run(model: Any, generate: Callable[..., Any], *, case: Case | None = None, **parts: Any) -> Trace:
    """Record one run of `generate(model, request)`; keywords of `record` and of the subject alike."""
    parts.update({} if case is None else {"case": case})
    of_record = {k: parts.pop(k) for k in ("inputs", "disturbances", "disturb_rng", "kind", "images") if k in parts}
    subject = make_subject(generate, **parts)
    return record(model, subject, case or subject.case, **of_record)


def toy_model(**parts: Any) -> SimpleNamespace:
    """An object whose `velocity(x, time, null=None)` returns the state times the time."""

    def velocity(x: torch.Tensor, time: torch.Tensor, null: torch.Tensor | None = None) -> torch.Tensor:
        return x * time.reshape(-1, 1, 1, 1)

    return SimpleNamespace(**{"velocity": velocity, **parts})


# Multiples of 1/32, so that the arithmetic of the toys is exact in float32.
STATE = torch.arange(36.0).reshape(3, 2, 2, 3) / 32
TIMES = torch.full((3,), 0.5)


@pytest.fixture(scope="session")
def tiny_model() -> Any:
    """The float32 tiny model; tests must leave it as they found it."""
    return tiny_subject.build(tiny_subject.case)


def draw_numpy() -> float:
    """From NumPy's global generator, as old code does."""
    return float(numpy.random.rand())  # noqa: NPY002


@pytest.fixture
def global_state() -> Callable[[], tuple]:
    """A function that returns a comparable picture of all global random generators."""

    def picture() -> tuple:
        return torch.get_rng_state().tolist(), random.getstate(), str(numpy.random.get_state())  # noqa: NPY002

    return picture
