"""A legal header as text, and a run's JSON."""

import json
from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from fmcheck.experiment import Header

HEADER = Header(
    exp_id="exp_20250826_A",
    title="guidance in the velocity domain",
    purpose="whether w = 3 beats w = 2",
    key_diffs=("w=3 (2)", "grid=quantile"),
    dataset="24M t2i",
    hardware="A100x64",
    core_params="lr=1e-4",
)
LEGAL = """\
# ======================================================================
# EXP CONFIG META (paste at top of your .yaml / .toml / .ini config file)
# ----------------------------------------------------------------------
# EXP_ID      : exp_20250826_A            # exp_<yyyymmdd>_<x>
# TITLE       : guidance in the velocity domain
# PURPOSE     : whether w = 3 beats w = 2
# KEY_DIFFS   : w=3 (2), grid=quantile; betas=(0.9, 0.99)
# DATASET     : 24M t2i
# HARDWARE    : A100x64
# BRANCH/COMMIT: main / abc1234           # optional
# CORE PARAMS : lr=1e-4, batch=2048, res=256, seed=0
# TAGS        : [guidance, grid]          # optional
# NOTES       : issue#7 is open           # optional
# ======================================================================
lr: 1e-4
"""

FINDING = {"severity": "error", "message": "came out 3.5 | expected 2.5"}
RUN: dict[str, Any] = {
    "schema": 1,
    "subject": "toy:subject",
    "case": {"prompts": ["a", "b"], "height": 64, "width": 32, "num_steps": 4, "seed": 7},
    "versions": {"fmcheck": "0.1.0", "torch": "2.6.0", "device": "cpu (x86_64)"},
    "verdict": {"failed": True, "reasons": ["2 rules failed (TY002 TY003)"]},
    "counts": {"passed": 1, "failed": 2, "expected": 0, "skipped": 1, "judged": 3},
    "severities": {"error": 5, "warning": 1, "note": 0},
    "outcomes": [
        {"code": "TY001", "name": "always-right", "status": "passed", "ratio": 0.6, "findings": []},
        {
            "code": "TY002",
            "name": "always-wrong",
            "status": "failed",
            "ratio": 2.0,
            "findings": [{"severity": "warning", "message": "a little off"}, FINDING],
        },
        {"code": "TY003", "name": "not-finite", "status": "failed", "ratio": "nan", "findings": [FINDING]},
        {"code": "TY004", "name": "no-padding", "status": "skipped", "ratio": None, "findings": []},
    ],
    "generate_calls": 51,
    "generate_seconds": 3.84,
    "seconds": 4.5,
    "a key of a later version": None,
}


@pytest.fixture
def legal() -> str:
    return LEGAL


@pytest.fixture
def run_table() -> dict[str, Any]:
    return deepcopy(RUN)


@pytest.fixture
def write_run(tmp_path: Path) -> Callable[..., Path]:
    """The run's JSON in a file, with some keys changed."""

    def write(name: str = "run.json", changes: Mapping[str, Any] | None = None) -> Path:
        path = tmp_path / name
        path.write_text(json.dumps({**RUN, **(changes or {})}))
        return path

    return write
