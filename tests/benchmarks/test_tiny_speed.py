"""How fast the tiny model makes a picture: the one figure of time that is promised, on one core."""

import statistics
import time

import pytest
import torch

from fmcheck.case import Case
from fmcheck.subject import Request
from fmcheck.subjects.tiny import subject, tokenize
from tests.benchmarks.conftest import result_file

pytestmark = pytest.mark.benchmark

CASE = Case(prompts=(subject.judge.prompts[0],), height=256, width=256, num_steps=8, guidance_scale=2.0)


def test_a_guided_picture_takes_a_tenth_of_a_second(capsys: pytest.CaptureFixture[str]) -> None:
    model = subject.build(CASE)
    inputs = tokenize(model, list(CASE.prompts))
    seconds = []
    for _ in range(40):
        request = Request(CASE, inputs, torch.Generator().manual_seed(0))
        started = time.perf_counter()
        subject.generate(model, request)
        seconds.append(time.perf_counter() - started)
    median, fastest = statistics.median(seconds), min(seconds)
    with capsys.disabled():
        print(f"\ngenerate(), 256x256, 8 steps, guided: {1e3 * median:.0f} ms, fastest {1e3 * fastest:.0f} ms")
    with result_file("tiny-speed") as figures:
        figures["generate, ms, median"] = round(1e3 * median, 1)
        figures["generate, ms, fastest"] = round(1e3 * fastest, 1)
    # Others may use the core meanwhile, which the fastest of forty runs sees least of.
    assert fastest <= 0.1
