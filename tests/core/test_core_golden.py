"""Golden scores come back from their file as they were, and whatever else is in it is refused by name."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from fmcheck.errors import DeclarationError
from fmcheck.golden import Golden, read_golden
from fmcheck.judge import Judge

GOLDEN = Golden(
    prompts=("a red circle", "a blue „square“"),
    scores={"score": ((0.833333, 1.0), (0.5, 0.0)), "colour": ((1.0, 1.0), (1.0, 0.0))},
    guidance_scale=2.0,
    num_steps=8,
    height=256,
    width=192,
    seed=3,
)


def changed(**changes: Any) -> Golden:
    return dataclasses.replace(GOLDEN, **changes)


def test_means_are_over_seeds_and_prompts() -> None:
    assert GOLDEN.seeds == 2
    assert GOLDEN.mean("score") == pytest.approx((0.833333 + 1 + 0.5) / 4)
    assert GOLDEN.mean("colour") == 0.75


def test_a_file_gives_them_back(tmp_path: Path) -> None:
    path = tmp_path / "golden.json"
    path.write_text(GOLDEN.as_text(), encoding="utf-8")
    assert read_golden(path) == GOLDEN
    assert json.loads(path.read_text(encoding="utf-8"))["scores"]["colour"] == [[1, 1], [1, 0]]
    assert max(map(len, GOLDEN.as_text().splitlines())) < 60, "one line a prompt or a seed, for reviews of a change"


def test_no_digit_is_lost(tmp_path: Path) -> None:
    """41/48 lies half way between two units of the permutation test: its last digit decides which one it is."""
    path = tmp_path / "golden.json"
    golden = changed(scores={"score": ((41 / 48, 1 / 3), (0.1 + 0.2, 1.0))})
    path.write_text(golden.as_text(), encoding="utf-8")
    assert read_golden(path) == golden


def test_no_file_is_no_golden(tmp_path: Path) -> None:
    assert read_golden(tmp_path / "golden.json") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "JSONDecodeError"),
        ("[]", "expected a table"),
        ("{}", "KeyError"),
        (GOLDEN.as_text().replace('"seed"', '"sead"'), "did you mean 'seed'"),
        (GOLDEN.as_text().replace("0.833333", "1.5"), r"numbers in \[0, 1\]"),
        (GOLDEN.as_text().replace("0.833333", "NaN"), r"numbers in \[0, 1\]"),
        (GOLDEN.as_text().replace("[0.833333,1]", "[1]"), "rows of 2 numbers"),
    ],
)
def test_a_damaged_file_says_what_is_wrong_with_it(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "golden.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DeclarationError, match=message) as caught:
        read_golden(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompts": ()}, "prompts"),
        ({"scores": {}}, "scores by name"),
        ({"scores": {"score": ((1.0, 1.0),), "colour": ((1.0, 1.0),) * 2}}, "as many rows of every score"),
        ({"num_steps": 0}, "num_steps: expected a positive integer"),
        ({"seed": -1}, "seed"),
        ({"guidance_scale": float("inf")}, "guidance_scale"),
    ],
)
def test_what_no_run_can_have_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DeclarationError, match=message):
        changed(**changes)


@pytest.mark.parametrize(
    ("golden", "message"),
    [
        (changed(prompts=("a red circle", "a green square")), "not the first of the judge's"),
        (changed(scores={"colour": GOLDEN.scores["colour"]}), "no score 'score'"),
        ("golden.json", "expected a Golden; found str"),
    ],
)
def test_a_judge_refuses_golden_scores_of_others(golden: Any, message: str) -> None:
    prompts = (*GOLDEN.prompts, "a third")
    judge = Judge(score=lambda *_: {}, headline="score", prompts=prompts, golden=GOLDEN)
    assert judge.golden is GOLDEN
    with pytest.raises(DeclarationError, match=message):
        dataclasses.replace(judge, golden=golden)
