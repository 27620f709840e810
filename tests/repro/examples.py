"""A valid reproduction, strategies for any valid one, and subjects that end their process."""

import os
import time

import torch
from hypothesis import strategies as st

from fmcheck import Case, Request, Subject
from fmcheck.outcome import Finding
from fmcheck.repro import Print, Reproduction, Settings
from fmcheck.repro.digest import PROJECTIONS
from fmcheck.repro.settings import PRECISIONS, VERSIONS
from fmcheck.rules import all_rules
from fmcheck.scenario import Call, Scenario
from tests.cli import toy_subject

BROKEN, CLEAN = "tests.cli.toy_subject:broken", "tests.cli.toy_subject:subject"
CALL = Call(case=toy_subject.subject.case)
SETTINGS = Settings(
    threads=1,
    deterministic_algorithms=0,
    cudnn_deterministic=False,
    cudnn_benchmark=False,
    float32_matmul_precision="highest",
    cudnn_tf32=True,
)
FINDING = Finding(
    code="FM203",
    name="wrong-guidance",
    severity="error",
    message="came out 3.5, expected 2.5",
    where="run fuzz, step 1",
    used=1.0,
    allowed=1e-5,
    ratio=1e5,
)
PRINT = Print(
    run="fuzz",
    name="result",
    dtype="float32",
    shape=(2, 3),
    digest="0" * 64,
    not_finite=0,
    rms=0.5,
    projections=(0.25,) * PROJECTIONS,
)


def reproduction(**changes: object) -> Reproduction:
    """A valid one, of the toy with a wrong guidance scale."""
    given = {
        "target": BROKEN,
        "finding": FINDING,
        "scenario": Scenario((CALL,)),
        "versions": {"torch": "2.6.0"},
        "settings": SETTINGS,
        "prints": (PRINT,),
    }
    return Reproduction(**{**given, **changes})  # type: ignore[arg-type]


# Everything that UTF-8 can hold: control characters, line ends, other planes.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
floats = st.floats()
numbers = st.none() | floats
cases = st.builds(
    Case,
    prompts=st.lists(texts, min_size=1, max_size=3).map(tuple),
    height=st.integers(1, 16384),
    width=st.integers(1, 16384),
    num_steps=st.integers(1, 200),
    guidance_scale=st.floats(allow_nan=False, allow_infinity=False),
    seed=st.integers(0, 2**63 - 1),
    dtype=st.sampled_from(["float32", "bfloat16", "float16", "float64"]),
    device=st.sampled_from(["cpu", "cuda", "cuda:1", "mps"]),
)
calls = st.builds(
    Call,
    case=cases,
    kind=st.sampled_from(["generate", "loss"]),
    tokens=st.sampled_from(["plain", "padded", "masked"]),
    global_seed=st.none() | st.integers(0, 2**32 - 1),
)
codes = st.sampled_from([rule.code for rule in all_rules()])
findings = st.builds(
    Finding,
    code=codes | st.sampled_from(["CRASH", "HANG", "MEMORY", "MY001"]),
    name=texts,
    severity=st.sampled_from(["error", "warning"]),
    message=texts,
    where=texts,
    used=numbers,
    allowed=numbers,
    ratio=numbers,
    diagnosis=st.none() | texts,
)
prints = st.builds(
    Print,
    run=texts,
    name=texts,
    dtype=texts,
    shape=st.lists(st.integers(0, 2**40), max_size=4).map(tuple),
    digest=st.text("0123456789abcdef", min_size=64, max_size=64),
    not_finite=st.integers(0, 2**40),
    rms=floats,
    projections=st.tuples(*[floats] * PROJECTIONS),
)
reproductions = st.builds(
    Reproduction,
    target=st.sampled_from(["tiny", "mutant:anything", "my_model.checks:subject", "módulo:sujet"]),
    finding=findings,
    scenario=st.builds(Scenario, st.lists(calls, min_size=1, max_size=2), st.lists(codes, max_size=2)),
    also=st.lists(texts, max_size=2).map(tuple),
    expect=st.sampled_from(["fixed", "reproduced"]),
    time_limit=st.floats(0.001, 86400),
    versions=st.dictionaries(st.sampled_from(VERSIONS), texts),
    settings=st.builds(
        Settings,
        threads=st.integers(1, 4096),
        deterministic_algorithms=st.integers(0, 2),
        cudnn_deterministic=st.booleans(),
        cudnn_benchmark=st.booleans(),
        float32_matmul_precision=st.sampled_from(PRECISIONS),
        cudnn_tf32=st.booleans(),
    ),
    prints=st.lists(prints, max_size=2).map(tuple),
)


def _abort(model: object, request: Request) -> torch.Tensor:
    os.abort()


def _hang(model: object, request: Request) -> torch.Tensor:
    time.sleep(600)
    raise AssertionError("the limit is below that")


aborting: Subject = toy_subject.make("toy that dies", generate=_abort)
hanging: Subject = toy_subject.make("toy that hangs", generate=_hang)
