"""Settings of a sweep: what a subject is asked for, in its own convention, and what is refused."""

from dataclasses import replace
from pathlib import Path

import pytest

from fmcheck.errors import DeclarationError
from fmcheck.subjects import load_subject
from fmcheck.sweep import read_prompts, settings_for
from fmcheck.sweep.settings import Key
from tests.sweep.toys import PROMPTS, likes_03, toy


def test_default_scales_are_the_same_weights_in_either_convention() -> None:
    assert settings_for(load_subject("tiny")).scales == (0.0, 2.0, 3.0, 4.5, 6.0)
    assert settings_for(toy()).scales == (1.0, 3.0, 4.0, 5.5, 7.0)


def test_default_prompts_are_the_judges_or_those_of_the_case() -> None:
    assert settings_for(toy(likes_03)).prompts == PROMPTS[:8]
    assert settings_for(toy(likes_03), count=3).prompts == PROMPTS[:3]
    assert settings_for(toy()).prompts == PROMPTS[:2]


def test_seeds_do_not_depend_on_scale_or_steps_and_differ_between_batches() -> None:
    settings = settings_for(toy(likes_03), steps=[2, 5], scales=[1, 3], seeds=3, batch=4)
    seeds = {}
    for key in settings.keys(toy().spec):
        seeds.setdefault((key.seed, key.batch), set()).add(settings.case_of(key).seed)
    assert all(len(found) == 1 for found in seeds.values())
    assert len({*map(tuple, seeds.values())}) == len(seeds) == 3 * 2


def test_prompts_are_cut_into_batches_in_order() -> None:
    settings = settings_for(toy(likes_03), count=5, batch=2)
    assert settings.batches == [PROMPTS[:2], PROMPTS[2:4], PROMPTS[4:5]]
    assert settings.case_of(Key(8, 1.0, 0, 2)).prompts == PROMPTS[4:5]


@pytest.mark.parametrize(
    ("changes", "scales", "expected"),
    [
        ({}, [3.0], 1.0),
        ({"guidance_formula": "cond_plus"}, [3.0], 0.0),
        ({"guidance_from": 1.0}, [3.0, 0.0], 0.0),
        ({"guidance_layout": "embedded"}, [3.0], None),
    ],
)
def test_the_unguided_scale_is_a_listed_one_or_the_neutral_one(
    changes: dict[str, object], scales: list[float], expected: float | None
) -> None:
    spec = replace(toy().spec, **changes)  # type: ignore[arg-type]
    assert settings_for(toy(), scales=scales).unguided_scale(spec) == expected


def test_the_unguided_run_comes_before_those_that_are_compared_with_it() -> None:
    settings = settings_for(toy(), scales=[3, 0], steps=[2], seeds=1)
    assert [key.scale for key in settings.keys(toy().spec)] == [1.0, 3.0, 0.0]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"scales": []}, "--cfg-scale: expected one value or more; found none"),
        ({"scales": [2, 3, 2]}, "--cfg-scale: expected different values; found 2 more than once"),
        ({"scales": [float("nan")]}, "guidance_scale"),
        ({"steps": [0]}, "--num-steps: expected an integer of 1 or more; found 0"),
        ({"steps": []}, "--num-steps: expected one value or more"),
        ({"steps": [4, 4]}, "found 4 more than once"),
        ({"seeds": 0}, "--seeds: expected an integer of 1 or more; found 0"),
        ({"seeds": 200_000}, "--seeds: expected fewer than"),
        ({"batch": 0}, "--batch-size"),
        ({"count": 0}, "--count"),
        ({"count": 3}, "at most 2, since subject 'sweep toy' has no more prompts"),
        ({"prompts": ["a", "b", "a"]}, "--prompts: expected different values; found 'a' more than once"),
        ({"size": (16, 20)}, "--size: expected multiples of 8, the size multiple of subject 'sweep toy'; found 16x20"),
    ],
)
def test_what_cannot_be_swept_is_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(DeclarationError) as caught:
        settings_for(toy(), **changes)  # type: ignore[arg-type]
    assert said in str(caught.value)


def test_a_size_that_the_subject_does_not_list_is_refused() -> None:
    subject = toy().but(sizes=((16, 24), (32, 32)))
    assert settings_for(subject, size=(32, 32)).case.height == 32
    with pytest.raises(DeclarationError, match="one of 16x24, 32x32"):
        settings_for(subject, size=(64, 64))


def test_prompts_are_the_lines_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text("\ufeffa red circle\n\n  ein grünes Quadrat \n", encoding="utf-8")
    assert read_prompts(path) == ("a red circle", "ein grünes Quadrat")


def test_an_empty_a_missing_and_a_binary_file_say_so(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    with pytest.raises(DeclarationError, match="No such file"):
        read_prompts(path)
    path.write_text(" \n\n")
    with pytest.raises(DeclarationError, match="the file is empty"):
        read_prompts(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DeclarationError, match="expected a UTF-8 text file"):
        read_prompts(path)
