"""A judge's scores are checked where they come in: a wrong one names itself, and never becomes a ranking."""

import dataclasses

import pytest
import torch

from fmcheck.errors import DeclarationError
from fmcheck.judge import Judge

IMAGES = torch.zeros(2, 3, 8, 8)
PROMPTS = ["a red circle", "a blue square"]
JUDGE = Judge(score=lambda prompts, images: {"right": [0, 0.5]}, headline="right", prompts=("a red circle",))


def test_scores_are_float64_whatever_they_were() -> None:
    scores = JUDGE(PROMPTS, IMAGES)
    assert scores["right"].dtype == torch.float64
    assert scores["right"].tolist() == [0, 0.5]


def test_images_come_as_float32_without_gradient() -> None:
    seen = []

    def score(prompts: list[str], images: torch.Tensor) -> dict[str, torch.Tensor]:
        seen.append((images.dtype, images.requires_grad))
        return {"right": torch.ones(2)}

    dataclasses.replace(JUDGE, score=score)(PROMPTS, IMAGES.bfloat16().requires_grad_())
    assert seen == [(torch.float32, False)]


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ({"wrong": [0, 0]}, "no score 'right' among wrong"),
        ({"right": [0, 0, 0]}, r"expected 2 numbers in \[0, 1\]; found \[3\]"),
        ({"right": [0, 1.5]}, "with others"),
        ({"right": [0, float("nan")]}, "with others"),
        ({"right": ["a", "b"]}, "score raised"),
        (None, "score raised AttributeError"),
    ],
)
def test_a_wrong_answer_is_refused(scores: object, message: str) -> None:
    with pytest.raises(DeclarationError, match=message):
        dataclasses.replace(JUDGE, score=lambda *_: scores)(PROMPTS, IMAGES)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"score": None}, "score: expected a function"),
        ({"headline": ""}, "headline"),
        ({"prompts": ()}, "prompts: expected a tuple"),
        ({"prompts": "a red circle"}, "prompts: expected a tuple"),
        ({"prompts": (1,)}, "expected texts only"),
    ],
)
def test_a_wrong_declaration_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(DeclarationError, match=message):
        dataclasses.replace(JUDGE, **changes)


def test_a_mean_that_rounding_takes_beyond_the_ends_is_put_back() -> None:
    judge = Judge(score=lambda p, i: {"x": torch.tensor([1 + 1e-7, -1e-8])}, headline="x", prompts=("a",))
    assert judge(["a", "b"], torch.zeros(2, 3, 4, 4))["x"].tolist() == [1.0, 0.0]
