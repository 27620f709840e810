"""FM209 on the tiny model as a flow from noise, whose branches are told a known share of the prompt."""

import pytest
import torch

from fmcheck.mutants.noise_start import conditional, normal, with_noise_start
from fmcheck.run import check
from fmcheck.subject import Subject
from fmcheck.subjects import load_subject


@pytest.fixture(scope="module")
def tiny() -> Subject:
    return load_subject("tiny")


def judged(subject: Subject) -> tuple[str, str]:
    """Status of FM209, with the text of its only finding, or the reason why there is none."""
    (outcome,) = check(subject, select=["FM209"]).outcomes
    return outcome.status, " ".join(str(finding) for finding in outcome.findings) or outcome.reason


def test_a_null_without_the_prompt(tiny: Subject) -> None:
    assert judged(with_noise_start(tiny, "clean", normal, conditional)) == ("passed", "")


@pytest.mark.parametrize("rescale", [{"guidance_rescale": 0.7}, {"guidance_norm": "row"}])
def test_guidance_that_is_scaled_back_brings_no_prompt_into_the_null(tiny: Subject, rescale: dict[str, object]) -> None:
    """The loop does not rescale, which other rules find; the branches are what the network returned."""
    subject = with_noise_start(tiny, "rescaled", normal, conditional, **rescale)
    assert judged(subject) == ("passed", "")


@pytest.mark.parametrize(("share", "said"), [(1.0, "100%"), (0.1, "10%"), (0.01, "1%")])
def test_the_share_that_is_told_is_named(tiny: Subject, share: float, said: str) -> None:
    subject = with_noise_start(tiny, "told", normal, lambda null: torch.where(null, share, 1.0))
    status, text = judged(subject)
    assert status == "failed"
    assert f"({said} of what the conditional one does)" in text


def test_exchanged_branches_are_called_so(tiny: Subject) -> None:
    status, text = judged(with_noise_start(tiny, "exchanged", normal, lambda null: null))
    assert status == "failed"
    assert "the branches are exchanged" in text


def test_prompts_without_any_influence_say_nothing(tiny: Subject) -> None:
    status, reason = judged(with_noise_start(tiny, "deaf", normal, torch.zeros_like))
    assert status == "not informative"
    assert "neither branch depends on the prompts" in reason


def test_a_flow_from_text_cannot_tell(tiny: Subject) -> None:
    status, reason = judged(tiny)
    assert status == "not informative"
    assert "the flow starts at the text" in reason
