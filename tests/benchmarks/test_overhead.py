"""What recording and judging cost over the bare model, and where the rest goes."""

import time
from functools import partial

import pytest
import torch

from fmcheck.case import Case
from fmcheck.outcome import Evidence
from fmcheck.plan import Run, Wish
from fmcheck.record.model_state import ModelState
from fmcheck.record.recorder import record
from fmcheck.rules import all_rules, unasked
from fmcheck.run import Session, check
from fmcheck.subject import Request
from fmcheck.subjects.tiny import subject
from tests.benchmarks.conftest import bare_seconds, interleave, result_file

pytestmark = pytest.mark.benchmark

CASE = Case(prompts=("a large red circle", "a small green square"), height=256, width=256, num_steps=8)
TRACE_RULES = [rule for rule in all_rules() if rule.wishes is None and "generate" in rule.kinds]


def test_recorded_and_judged_generate_against_the_bare_one(capsys: pytest.CaptureFixture[str]) -> None:
    session = Session(subject)
    model, baseline = session.model(CASE)
    inputs = subject.tokenize(model, list(CASE.prompts))

    def bare() -> None:
        subject.generate(model, Request(CASE, inputs, torch.Generator().manual_seed(0)))

    def recorded() -> Run:
        trace = record(model, subject, CASE, inputs=inputs, baseline=baseline)
        return Run(Wish("benchmark", CASE), subject, trace)

    def judged() -> int:
        run, evidence = recorded(), Evidence()
        for rule in TRACE_RULES:
            evidence.collect(rule, run.name, CASE, partial(rule.function, run))
        assert not evidence.findings
        return len(TRACE_RULES) - len(evidence.silent)

    recording = interleave(recorded, bare, pairs=60)
    whole = interleave(judged, bare, pairs=60)
    with capsys.disabled():
        print(f"\nrecorded / bare           {recording}")
        print(f"recorded and judged / bare {whole}  ({judged()} rules had something to judge)")
    with result_file("overhead") as figures:
        for name, measured in (("recorded / bare", recording), ("recorded and judged / bare", whole)):
            figures[name] = round(measured.least, 3)
            figures[f"{name}, median and quartiles"] = [round(q, 3) for q in (measured.median, *measured.quartiles())]
        figures["rules that had something to judge"] = judged()
    # Half of the pairs or more above the limit and a quarter of them below is within the spread of a shared machine.
    assert whole.quartiles()[0] <= 1.25, f"recorded and judged generate() costs {whole}, at most 1.25 is allowed"


def test_whole_run_against_its_own_generate_calls(capsys: pytest.CaptureFixture[str]) -> None:
    """`fmcheck run` on the tiny model over the bare time of the very `generate()` and loss calls that it makes."""
    check(subject)
    ratios = []
    for _ in range(5):
        session = Session(subject, without=unasked(()))
        started = time.perf_counter()
        for rule in all_rules():
            session.judge(rule)
        whole = time.perf_counter() - started
        bare = bare_seconds(session)
        ratios.append(whole / bare)
    ratios.sort()
    with capsys.disabled():
        print(f"\nwhole run / bare calls    {ratios[2]:.3f} (min {ratios[0]:.3f}, max {ratios[-1]:.3f}, 5 runs)")
    with result_file("whole-run") as figures:
        figures["whole run / bare calls"] = round(ratios[2], 3)
        figures["range"] = [round(ratios[0], 3), round(ratios[-1], 3)]
        figures["generate calls"] = session.calls
    assert ratios[2] <= 2.0, f"the whole run costs {ratios[2]:.2f} of its bare calls, at most 2 is allowed"


def test_model_state_is_copied_once_per_model() -> None:
    session = Session(subject)
    session.run(session.plan.base)
    _, first = session.model(CASE)
    session.run(session.plan.other_seed)
    _, second = session.model(CASE)
    assert isinstance(first, ModelState)
    assert first is second
