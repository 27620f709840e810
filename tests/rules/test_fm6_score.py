"""FM609: golden scores of a toy, whose pictures are judged against those that it makes without noise."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from fmcheck.errors import DeclarationError
from fmcheck.gallery.golden import make_golden
from fmcheck.golden import Golden
from fmcheck.judge import Judge
from fmcheck.plan import Plan
from fmcheck.rules import get_rule
from fmcheck.run import Outcome, Session, check
from fmcheck.subject import Subject
from tests.rules.toy import Toy, judge, tokenize, toy_subject

SIZES, THINGS, PLACES = ("big", "tiny", "wide"), ("cat", "dog", "hen", "owl"), ("left", "right", "below")
PROMPTS = tuple(f"a {size} {thing} {place}" for size in SIZES for thing in THINGS for place in PLACES)


class Clear(Toy):
    """A toy whose words are loud beside its noise."""

    def __init__(self) -> None:
        super().__init__()
        with torch.no_grad():
            self.text_encoder.words.mul_(5)


class Noiseless(Clear):
    def initial_state(self, z: Tensor, height: int, width: int) -> Tensor:
        return super().initial_state(self.mean, height, width)

    def pictures(self, prompts: Sequence[str]) -> Tensor:
        given = tokenize(self, list(prompts))
        weight = given["attention_mask"].float()
        words = self.text_encoder.words[given["input_ids"]] * weight[..., None]
        self.mean = (words.sum(1) / weight.sum(1, keepdim=True)).detach()
        return self.generate(**given, scale=2.0, num_steps=8, generator=torch.Generator(), height=64, width=64)


def score(prompts: Sequence[str], images: Tensor) -> dict[str, Tensor]:
    """Share of the cells that are as bright as without noise, of three colours; the headline takes all of them."""
    right = ((images > 0) == (Noiseless().pictures(prompts) > 0)).float().flatten(2).mean(2)
    return {"red": right[:, 0], "green": right[:, 1], "blue": right[:, 2], "all": right.mean(1)}


def golden_toy(**changes: Any) -> Subject:
    plain = toy_subject(Clear, judge=Judge(score=score, headline="all", prompts=PROMPTS))
    golden = make_golden(plain, prompts=24, seeds=4)
    return plain.but(judge=dataclasses.replace(plain.judge, golden=dataclasses.replace(golden, **changes)))


@pytest.fixture(scope="module")
def toy() -> Subject:
    return golden_toy()


def judged(toy: Subject, model: type[Toy] = Clear, **changes: Any) -> Outcome:
    return Session(toy.but(build=lambda case: model(), **changes)).judge(get_rule("FM609"))


def test_the_golden_scores_are_those_of_noisy_pictures(toy: Subject) -> None:
    golden = toy.judge.golden
    assert 0.8 < golden.mean("all") < 0.99
    assert set(golden.scores) == {"red", "green", "blue", "all"}
    assert len(set(golden.scores["all"])) == golden.seeds == 4, "every seed has noise of its own"


def test_the_same_code_passes_and_says_how_it_compares(toy: Subject) -> None:
    outcome = judged(toy)
    assert (outcome.status, outcome.checks) == ("passed", 2)
    assert outcome.ratio < 1
    assert outcome.measured[0].startswith("all 0.9")
    assert "Student's t over the prompts" in outcome.measured[0]


class OtherNoise(Clear):
    def generate(self, *given: Any, generator: torch.Generator, **named: Any) -> Tensor:
        torch.randn(17, generator=generator)
        return super().generate(*given, generator=generator, **named)


class RowByRow(Clear):
    """One prompt at a time: other batches, and another draw order in a text encoder of several draws."""

    def generate(self, input_ids: Tensor, attention_mask: Tensor, **named: Any) -> Tensor:
        rows = zip(input_ids.split(5), attention_mask.split(5), strict=True)
        return torch.cat([super(RowByRow, self).generate(ids, mask, **named) for ids, mask in rows])


@pytest.mark.parametrize("model", [OtherNoise, RowByRow])
def test_correct_code_with_other_draws_passes(toy: Subject, model: type[Toy]) -> None:
    outcome = judged(toy, model)
    assert outcome.status == "passed"
    assert outcome.ratio < 0.9


class WordsExchanged(Clear):
    """`cat` and `dog` are each other's."""

    def __init__(self) -> None:
        super().__init__()
        cat, dog = (int(tokenize(self, [word])["input_ids"][0, 1]) for word in ("cat", "dog"))
        with torch.no_grad():
            self.text_encoder.words[[cat, dog]] = self.text_encoder.words[[dog, cat]]


class RedAndBlue(Clear):
    def finish(self, images: Tensor) -> Tensor:
        return images.flip(1)


class Noisier(Clear):
    def __init__(self) -> None:
        super().__init__()
        self.text_encoder.register_forward_hook(lambda module, given, z: 3 * z - 2 * z.mean(1, keepdim=True).detach())

    def initial_state(self, z: Tensor, height: int, width: int) -> Tensor:
        return super().initial_state(z + 4 * z.roll(1, 1), height, width)


@pytest.mark.parametrize("model", [WordsExchanged, RedAndBlue, Noisier])
def test_wrong_pictures_fail(toy: Subject, model: type[Toy]) -> None:
    outcome = judged(toy, model)
    assert outcome.status == "failed"
    finding = outcome.findings[0]
    assert finding.used > finding.allowed
    assert "where the golden one is" in finding.message
    assert "fell most: " in finding.diagnosis


def test_the_diagnosis_names_the_prompts_that_fell(toy: Subject) -> None:
    finding = judged(toy, WordsExchanged).findings[0]
    worst = finding.diagnosis.partition("worst prompts: ")[2]
    assert worst.count("cat") + worst.count("dog") == 3


def test_the_part_that_fell_furthest_is_told_too(toy: Subject) -> None:
    findings = {finding.message.split()[4]: finding for finding in judged(toy, RedAndBlue).findings}
    assert set(findings) in ({"all", "red"}, {"all", "blue"}), "green is as right as before"
    fell = findings["all"].diagnosis.partition("; worst")[0]
    assert max(fell.index("red from"), fell.index("blue from")) < len("fell most: red from 0.90 to 0.90, blue from")


# Without a verdict.


def test_it_is_skipped_without_judge_golden_size_or_dtype(toy: Subject) -> None:
    rule = get_rule("FM609")

    def reason(subject: Subject) -> str:
        outcome = Session(subject).judge(rule)
        assert outcome.status == "skipped"
        return outcome.reason

    assert "declares no 'judge'" in judge("FM609").reason
    assert "no 'golden' scores" in reason(toy.but(judge=dataclasses.replace(toy.judge, golden=None)))
    assert "64x64, and this is 64x128" in reason(toy.but(case=toy.case.but(width=128)))
    halves = toy.but(dtypes=("float32", "bfloat16"), case=toy.case.but(dtype="bfloat16"))
    assert "float32, and this is bfloat16" in reason(halves)


def test_without_golden_scores_there_is_no_run_to_list(toy: Subject) -> None:
    assert get_rule("FM609").wishes(Plan(toy.but(judge=None))) == {}
    assert list(get_rule("FM609").wishes(Plan(toy))) == ["golden"]


def test_it_waits_to_be_asked(toy: Subject) -> None:
    (outcome,) = (o for o in check(toy, select=("FM6",)).outcomes if o.rule.code == "FM609")
    assert outcome.status == "skipped"
    assert "--thorough or --select FM609" in outcome.reason


def test_golden_scores_that_cannot_fall_are_not_informative(toy: Subject) -> None:
    nothing = dataclasses.replace(toy.judge.golden, scores={"all": ((0.0,) * 24,) * 4})
    outcome = judged(toy, judge=dataclasses.replace(toy.judge, golden=nothing))
    assert outcome.status == "not informative"
    assert "mean of 0" in outcome.reason


class Broken(Clear):
    def finish(self, images: Tensor) -> Tensor:
        return images * torch.nan


class Doubled(Clear):
    def finish(self, images: Tensor) -> Tensor:
        return images.repeat(2, 1, 1, 1)


@pytest.mark.parametrize(("model", "reason"), [(Broken, "FM109"), (Doubled, "FM702")])
def test_what_cannot_be_judged_is_left_to_other_rules(toy: Subject, model: type[Toy], reason: str) -> None:
    outcome = judged(toy, model)
    assert outcome.status == "not informative"
    assert reason in outcome.reason


def test_the_run_is_that_of_the_golden_scores_whatever_the_native_seed(toy: Subject) -> None:
    session = Session(toy, seed=7)
    assert session.judge(get_rule("FM609")).status == "passed"
    (wish,) = session.made
    golden: Golden = toy.judge.golden
    assert wish.case.seed == golden.seed == 0
    assert wish.case.prompts == golden.prompts
    assert (wish.case.num_steps, wish.case.guidance_scale) == (golden.num_steps, golden.guidance_scale)


def test_a_judge_that_raises_is_a_wrong_declaration_and_no_defect_of_ours(toy: Subject) -> None:
    def broken(prompts: Sequence[str], images: Tensor) -> dict[str, Tensor]:
        raise RuntimeError("no weights for my judge")

    with pytest.raises(DeclarationError, match="Judge: score raised RuntimeError: no weights for my judge"):
        check(toy.but(judge=dataclasses.replace(toy.judge, score=broken)), select=("FM609",))


def test_what_the_judge_draws_is_given_back(toy: Subject) -> None:
    def drawing(prompts: Sequence[str], images: Tensor) -> dict[str, Tensor]:
        torch.manual_seed(3)
        return score(prompts, images)

    before = torch.get_rng_state()
    assert judged(toy, judge=dataclasses.replace(toy.judge, score=drawing)).status == "passed"
    assert torch.equal(torch.get_rng_state(), before)
