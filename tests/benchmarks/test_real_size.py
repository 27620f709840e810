"""What recording and judging cost at real size: time over the bare pipeline, and memory on top of it."""

from functools import partial

import pytest
import torch

from fmcheck.outcome import Evidence
from fmcheck.plan import Run, Wish
from fmcheck.record.recorder import record
from fmcheck.rules import all_rules
from fmcheck.session import Session
from fmcheck.subject import Request, Subject
from tests.benchmarks.conftest import Ratios, interleave, result_file
from tests.benchmarks.real_size import Size, real_subject

pytestmark = pytest.mark.benchmark

TRACE_RULES = [rule for rule in all_rules() if rule.wishes is None and "generate" in rule.kinds]
SMALL = Size(width=64, depth=2, heads=4, decoder=(32, 16, 16, 8, 8))


def measured(subject: Subject, *, pairs: int) -> tuple[Ratios, dict[str, float]]:
    """Recorded and judged over bare, and peak memory of both in MiB (on CUDA only)."""
    session = Session(subject)
    case = session.subject.case
    model, baseline = session.model(case)

    def bare() -> None:
        subject.generate(model, Request(case, {}, torch.Generator().manual_seed(0)))
        _wait(case.device)

    def judged() -> None:
        run = Run(Wish("benchmark", case), session.subject, record(model, subject, case, baseline=baseline))
        evidence = Evidence()
        for rule in TRACE_RULES:
            if not session._missing(rule):
                evidence.collect(rule, run.name, case, partial(rule.function, run))
        _wait(case.device)
        assert not [str(f) for f in evidence.findings if f.severity == "error"]

    ratios = interleave(judged, bare, pairs=pairs, warm=1)
    return ratios, {"bare": _peak(bare, case.device), "recorded and judged": _peak(judged, case.device)}


def _wait(device: str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()


def _peak(function: object, device: str) -> float:
    if torch.device(device).type != "cuda":
        return 0.0
    torch.cuda.reset_peak_memory_stats()
    function()  # type: ignore[operator]
    return float(torch.cuda.max_memory_allocated() / 2**20)


def test_the_benchmark_itself_runs_at_a_small_size(capsys: pytest.CaptureFixture[str]) -> None:
    ratios, _ = measured(real_subject(SMALL, pixels=64, device="cpu", dtype="float32", num_steps=3), pairs=3)
    with capsys.disabled():
        print(f"\nsmall transformer, recorded and judged / bare {ratios}")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device")
def test_600_million_parameters_at_1024(capsys: pytest.CaptureFixture[str]) -> None:
    subject = real_subject(Size(), pixels=1024, device="cuda", dtype="bfloat16", num_steps=8)
    ratios, peaks = measured(subject, pairs=10)
    parameters = sum(p.numel() for p in subject.build(subject.case).transformer.parameters())
    added = peaks["recorded and judged"] - peaks["bare"]
    with capsys.disabled():
        print(
            f"\n{parameters / 1e6:.0f} M parameters at 1024x1024: {ratios}; "
            f"{added:.0f} MiB on top of {peaks['bare']:.0f}"
        )
    with result_file("real-size") as figures:
        figures["parameters of the transformer"] = parameters
        figures["recorded and judged / bare"] = round(ratios.least, 3)
        figures["median and quartiles"] = [round(q, 3) for q in (ratios.median, *ratios.quartiles())]
        figures["peak memory in MiB"] = {name: round(peak) for name, peak in peaks.items()}
