"""Cases that a search over the twelve correct pipelines blamed once, each by the rule that was wrong about it."""

from typing import Any

import pytest

from fmcheck.rules import get_rule
from fmcheck.run import Session
from tests.foreign.subjects import SUBJECTS

ONE = {"prompts": ("a",), "num_steps": 1}
CASES: list[tuple[str, str, dict[str, Any]]] = [
    # Guidance that is embedded, and off: the native scale is the unguided one.
    ("flux", "FM204", {**ONE, "height": 16, "width": 16, "guidance_scale": 0.0}),
    ("flux", "FM708", {**ONE, "height": 16, "width": 16, "guidance_scale": -1.0}),
    # Longer prompts of other rows are padded further, over which kernels round differently.
    ("crossflow", "FM405", {**ONE, "height": 8, "width": 8, "guidance_scale": 0.0}),
    # Guidance that makes a rounding error as large as the picture.
    (
        "crossflow",
        "FM803",
        {"prompts": ("", "background, top", ""), "height": 40, "width": 8, "num_steps": 2, "guidance_scale": 7e4},
    ),
    # The only evaluation lies outside of the guidance interval.
    ("interval", "FM204", {**ONE, "height": 8, "width": 8, "guidance_scale": 1.0}),
    ("interval", "FM204", {**ONE, "height": 8, "width": 8, "guidance_scale": 30.0}),
    ("interval", "FM708", {**ONE, "height": 8, "width": 8, "guidance_scale": 30.0}),
    # Guidance starts above a scale of 1, so that 0 and 0.5 are both off.
    ("video", "FM708", {**ONE, "height": 8, "width": 8, "guidance_scale": 0.0}),
    # So far below that no multiple of the scale reaches it.
    ("video", "FM708", {**ONE, "height": 8, "width": 8, "guidance_scale": -5.0}),
    # As many layers in the text encoder's output as there are prompts.
    ("video", "FM801", {"prompts": ("", ""), "height": 8, "width": 8, "num_steps": 1, "guidance_scale": 1.0}),
    ("video", "FM802", {"prompts": ("", ""), "height": 8, "width": 8, "num_steps": 1, "guidance_scale": 1.0}),
    # Guidance takes the state where the time is less than its rounding.
    ("tokens", "FM311", {**ONE, "height": 8, "width": 8, "guidance_scale": 100001.0}),
    # The first prompt has as many tokens as there are prompts, each of which has its own tensor.
    ("lists", "FM802", {"prompts": ("a", ""), "height": 8, "width": 8, "num_steps": 1, "guidance_scale": 1.0}),
    # Parts of two prompts, doubled, have as many rows as there are prompts.
    ("sampler_object", "FM801", {"prompts": ("", "a", "b", "c"), "num_steps": 1, "guidance_scale": 2.0}),
    ("sampler_object", "FM802", {"prompts": ("", "a", "b", "c"), "num_steps": 1, "guidance_scale": 2.0}),
    # Guidance is off, so that no run shows how many tokens a dropped prompt has.
    ("tokens", "FM908", {"prompts": ("a large", "large red"), "num_steps": 1, "guidance_scale": 0.79}),
]


@pytest.mark.parametrize(("name", "code", "case"), CASES)
@pytest.mark.filterwarnings("ignore")
def test_correct_pipelines_in_odd_cases(name: str, code: str, case: dict[str, Any]) -> None:
    subject = SUBJECTS[name]
    outcome = Session(subject.but(case=subject.case.but(**case))).judge(get_rule(code))
    assert not outcome.findings, [str(finding) for finding in outcome.findings]
    assert outcome.checks or outcome.reason
