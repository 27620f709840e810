"""The page of a sweep: at 80 columns, with what is missing said in words."""

import json
import math
from pathlib import Path

import pytest
import torch

from fmcheck import Request
from fmcheck.report.layout import plain
from fmcheck.report.sweep import sweep_json, sweep_page
from fmcheck.subject import Subject
from fmcheck.sweep import Campaign, Sweep, settings_for
from tests.sweep.toys import PROMPTS, Toy, likes_03, noise_judge, toy


def _broken(model: Toy, request: Request) -> torch.Tensor:
    images = model.generate(request)
    if request.guidance_scale == 9:
        raise ValueError("too much")
    return images * math.nan if request.guidance_scale == 6 else images


def _swept(subject: Subject, folder: Path, **changes: object) -> Sweep:
    settings = settings_for(subject, **{"scales": [1, 3, 6, 9], "steps": [2, 4], "seeds": 2, **changes})  # type: ignore[arg-type]
    return Campaign("toy", subject, settings, folder / "out", timed=False).run()


def _page(sweep: Sweep) -> str:
    return plain([sweep_page(sweep, width=80, written=["out/sweep.json"])])


def _words(sweep: Sweep) -> str:
    return " ".join(_page(sweep).split())


def test_no_line_is_longer_than_80_columns(tmp_path: Path) -> None:
    lines = _page(_swept(toy(likes_03, generate=_broken), tmp_path)).splitlines()
    assert max(map(len, lines)) <= 80


def test_a_row_says_what_was_measured(tmp_path: Path) -> None:
    page = _page(_swept(toy(likes_03), tmp_path)).splitlines()
    row = next(line for line in page if line.split()[:2] == ["2", "1"])
    # The unguided one: no distance, nothing clipped.
    assert row.split()[2] == "off"
    assert row.split()[5:7] == ["0.000", "0.0%"]
    assert next(line for line in page if line.startswith(">")).split()[1:3] == ["2", "3"]


def test_the_judges_other_scores_have_a_table_of_their_own(tmp_path: Path) -> None:
    assert "steps scale calm" in _words(_swept(toy(likes_03), tmp_path))


def test_pictures_that_are_not_finite_and_runs_that_raised_are_named_with_their_scale(tmp_path: Path) -> None:
    said = _words(_swept(toy(likes_03, generate=_broken), tmp_path))
    assert "2 6 not finite: 16 of 16 pictures" in said
    assert "NaN or infinity in the pictures, so nothing is summed up (scale 6 at 2 and 4 steps)" in said
    assert "generate raised ValueError: too much (scale 9 at 2 and 4 steps)" in said


def test_the_recommendation_names_what_it_was_held_against(tmp_path: Path) -> None:
    said = _words(_swept(toy(likes_03), tmp_path))
    assert "recommended: scale 3 at 2 steps: match is highest" in said
    assert "not told apart" in said
    assert "best minus scale 9 at 2 steps: +0.5" in said


def test_noise_and_a_missing_judge_get_no_recommendation(tmp_path: Path) -> None:
    assert "no recommendation: the data cannot tell" in _words(_swept(toy(noise_judge), tmp_path / "noise"))
    said = _words(_swept(toy(), tmp_path / "none"))
    assert "no recommendation: the subject has no judge" in said
    assert "2 steps: up to scale 1, clipped values and state sizes stay within 1.5 times the unguided ones" in said


def test_a_state_that_cannot_be_read_is_a_dash_with_its_reason(tmp_path: Path) -> None:
    said = _words(_swept(toy(generate=lambda m, r: torch.zeros(len(r.prompts), 3, 16, 24)), tmp_path))
    assert "0.000 0.0% 0.00 - -" in said
    assert "state: the velocity network was never called (everywhere)" in said


def test_json_holds_every_prompts_score_the_seeds_and_the_conventions(tmp_path: Path) -> None:
    document = json.loads(sweep_json(_swept(toy(likes_03, generate=_broken), tmp_path, batch=5)))
    assert document["conventions"]["guidance_formula"] == "uncond_plus"
    assert document["unguided_scale"] == 1.0
    assert document["prompts"] == list(PROMPTS[:8])
    assert document["seeds"][:3] == [
        {"seed": 0, "batch": 0, "generator": 0},
        {"seed": 0, "batch": 1, "generator": 100_003},
        {"seed": 1, "batch": 0, "generator": 1},
    ]
    row = document["rows"][1]
    assert (row["steps"], row["scale"]) == (2, 3.0)
    scores = row["scores"]["match"]
    assert scores["mean"] == pytest.approx(sum(scores["prompts"]) / 8)
    assert document["advice"]["chosen"] == [2, 3.0]
    assert document["rows"][2]["bad"] == 16
