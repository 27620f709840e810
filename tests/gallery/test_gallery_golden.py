"""Making golden scores: the judge's first prompts under several seeds, in the subject's own conventions."""

import dataclasses

import pytest
import torch

from fmcheck.errors import DeclarationError
from fmcheck.gallery.golden import golden_case, make_golden
from fmcheck.judge import Judge
from fmcheck.spec import FlowSpec
from fmcheck.subject import Subject
from tests.rules.toy import SPEC, Toy, toy_subject

PROMPTS = ("a cat", "a dog", "a hen")


def score(prompts: list[str], images: torch.Tensor) -> dict[str, torch.Tensor]:
    """How bright a picture is, and whether it is the first."""
    return {"bright": (images.flatten(1).mean(1) + 1) / 2, "first": torch.tensor([p == "a cat" for p in prompts])}


@pytest.fixture(scope="module")
def toy() -> Subject:
    return toy_subject(judge=Judge(score=score, headline="bright", prompts=PROMPTS))


def test_rows_are_seeds_and_columns_are_prompts(toy: Subject) -> None:
    seen: list[int] = []
    golden = make_golden(toy.but(case=toy.case.but(seed=5)), prompts=2, seeds=3, on_seed=seen.append)
    assert seen == [5, 6, 7]
    assert (golden.prompts, golden.seed, golden.seeds) == (PROMPTS[:2], 5, 3)
    assert golden.scores["first"] == ((1.0, 0.0),) * 3
    assert len(set(golden.scores["bright"])) == 3
    # A row is what the seed gives whenever it is asked for.
    again = make_golden(toy.but(case=toy.case.but(seed=6)), prompts=2, seeds=1)
    assert again.scores["bright"] == golden.scores["bright"][1:2]
    dataclasses.replace(toy.judge, golden=golden)


def test_the_weight_is_two_in_every_convention(toy: Subject) -> None:
    assert golden_case(toy, 1).guidance_scale == 2
    spec = dataclasses.replace(SPEC, guidance_formula="uncond_plus")
    assert golden_case(toy.but(spec=spec), 1).guidance_scale == 3
    assert FlowSpec(guidance_formula="uncond_plus").neutral_scale == 1


def test_settings_are_those_of_the_golden_scores_that_are_there(toy: Subject) -> None:
    golden = make_golden(toy, prompts=2, seeds=1, scale=0.5, steps=3)
    assert (golden.guidance_scale, golden.num_steps) == (0.5, 3)
    kept = toy.but(judge=dataclasses.replace(toy.judge, golden=golden))
    assert (golden_case(kept, 1).guidance_scale, golden_case(kept, 1).num_steps) == (0.5, 3)
    assert golden_case(kept, 1, scale=0.0).guidance_scale == 0
    assert (golden_case(toy, 1).guidance_scale, golden_case(toy, 1).num_steps) == (2, 8)


def test_what_cannot_be_made_is_refused(toy: Subject) -> None:
    with pytest.raises(DeclarationError, match="has no judge"):
        make_golden(toy.but(judge=None))
    with pytest.raises(DeclarationError, match="expected 1 to 3, those of the judge; found 4"):
        make_golden(toy, prompts=4)
    with pytest.raises(DeclarationError, match="seeds: expected at least 1"):
        make_golden(toy, prompts=1, seeds=0)

    def fails(model: object, request: object) -> None:
        raise RuntimeError("out of ideas")

    with pytest.raises(DeclarationError, match="no golden scores: .*out of ideas"):
        make_golden(toy.but(generate=fails), prompts=1)


def test_pictures_that_are_no_numbers_are_refused(toy: Subject) -> None:
    class Nan(Toy):
        def finish(self, images: torch.Tensor) -> torch.Tensor:
            return images * torch.nan

    with pytest.raises(DeclarationError, match="no golden scores: seed 0 makes NaN or infinity"):
        make_golden(toy.but(build=lambda case: Nan()), prompts=2, seeds=1)
