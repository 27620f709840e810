"""Rules that look where no default leads: extreme scales, new objects, single rows' times, the call after a fault."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from fmcheck.plan import Plan
from fmcheck.session import Session
from tests.rules.loops import Pipeline, caught, clean, loop_subject, silent
from tests.rules.loops import judge as judge_loop
from tests.rules.toy import CASE, SPEC, TextEncoder, Toy, Velocity, judge, toy_subject

# FM207.


class Guarded(Toy):
    def velocity_at(self, x: Tensor, t: Tensor, scale: float) -> Tensor:
        return super().velocity_at(x, t, self.used(scale))

    def used(self, scale: float) -> float:
        return scale


class Capped(Guarded):
    def used(self, scale: float) -> float:
        return min(scale, 10.0)


class NegativeIsOff(Guarded):
    def used(self, scale: float) -> float:
        return max(scale, 0.0)


class RefusesNegative(Guarded):
    def used(self, scale: float) -> float:
        if scale < 0:
            raise ValueError("scale: expected at least 0")
        return scale


class RefusesAll(Guarded):
    def used(self, scale: float) -> float:
        raise ValueError("scale: not today")


@pytest.mark.parametrize(("model", "told"), [(Capped, "u + 11 (c - u)"), (NegativeIsOff, "u + 1 (c - u)")])
def test_a_scale_that_is_quietly_another_one_is_found(model: type[Toy], told: str) -> None:
    caught(judge("FM207", model), told)


def test_guidance_that_is_off_below_the_neutral_scale_is_a_warning_until_it_is_declared() -> None:
    class OffBelow(Toy):
        def velocity_at(self, x: Tensor, t: Tensor, scale: float) -> Tensor:
            if scale > 0:
                return super().velocity_at(x, t, scale)
            return self.velocity(x, self.log_snr(t, len(x)), self.null(len(x), len(x)))

    outcome = judge("FM207", OffBelow)
    assert (outcome.status, {f.severity for f in outcome.findings}) == ("passed", {"warning"})
    assert "declare guidance_from" in str(outcome.findings[0])
    clean(judge("FM207", OffBelow, spec=replace(SPEC, guidance_from=0.0)))


def test_every_scale_by_the_formula_or_a_refusal_is_right() -> None:
    clean(judge("FM207"))
    clean(judge("FM207", RefusesNegative))
    silent(judge("FM207", RefusesAll), "every one of these scales raises")


@pytest.mark.parametrize("formula", ["cond_plus", "uncond_plus"])
def test_scales_that_the_spec_calls_off_are_not_asked_for(formula: str) -> None:
    class OffBelowOne(Pipeline):
        pass

    spec = loop_subject().spec
    clean(judge_loop("FM207", OffBelowOne, spec=type(spec)(**{**vars(spec), "guidance_formula": formula})))


# FM711 and FM717.


class AfterFault(Toy):
    """An exception inside the network leaves a flag by which the next call takes another step size."""

    busy = False

    def velocity_at(self, x: Tensor, t: Tensor, scale: float) -> Tensor:
        factor = 0.5 if self.busy else 1.0
        self.busy = True
        v = super().velocity_at(x, t, scale)
        self.busy = False
        return factor * v


class CachesPrompts(Toy):
    """A right cache: features of prompts are kept, and noise is drawn anew."""

    def generate(self, input_ids: Tensor, attention_mask: Tensor, scale: float, *rest: Any, **more: Any) -> Tensor:
        kept = self.__dict__.setdefault("kept", {})
        encode, generator = self.text_encoder.forward, more["generator"]

        def cached(ids: Tensor, mask: Tensor, _: Any) -> Tensor:
            key = str(ids.tolist()), str(mask.tolist())
            if key not in kept:
                kept[key] = encode(ids, mask, torch.Generator().manual_seed(1))
            return kept[key] + 0.1 * torch.randn(kept[key].shape, generator=generator)

        self.text_encoder.forward = cached
        try:
            return super().generate(input_ids, attention_mask, scale, *rest, **more)
        finally:
            self.text_encoder.forward = encode


class CachesNoise(Toy):
    """Text latents are kept by prompt and seed, noise and all."""

    def generate(self, input_ids: Tensor, *rest: Any, generator: torch.Generator, **more: Any) -> Tensor:
        kept = self.__dict__.setdefault("kept", {})
        key = str(input_ids.tolist()), str(more), generator.initial_seed()
        if key not in kept:
            kept[key] = super().generate(input_ids, *rest, generator=generator, **more)
            return kept[key]
        return super().generate(input_ids, *rest, generator=torch.Generator().manual_seed(key[2]), **more)


class OneBuffer(Toy):
    """Pictures are returned in one buffer a shape."""

    def finish(self, images: Tensor) -> Tensor:
        buffers = self.__dict__.setdefault("buffers", {})
        return buffers.setdefault(images.shape, torch.empty_like(images)).copy_(images)


class FirstShapeWins(Toy):
    """A factor is cached by the number of cells, which the wide case and the native one share."""

    def initial_state(self, z: Tensor, height: int, width: int) -> Tensor:
        factors = self.__dict__.setdefault("factors", {})
        return super().initial_state(z, height, width) * factors.setdefault(height * width, width / 64)


def test_what_an_exception_leaves_behind_shows_in_the_next_call() -> None:
    outcome = judge("FM711", AfterFault)
    caught(outcome, "differs on the second call")
    assert {finding.where.split(",")[0] for finding in outcome.findings} == {"run after-fault"}


def test_noise_that_is_kept_by_its_seed_and_prompts_that_are_rightly_kept() -> None:
    caught(judge("FM711", CachesNoise), "drawn from caller the first time and from nothing the second")
    clean(judge("FM711", CachesPrompts))


def test_pictures_that_a_later_call_overwrites() -> None:
    caught(judge("FM711", OneBuffer), "no longer what they were", "run other-seed")


def test_a_cache_that_another_shape_has_filled() -> None:
    caught(judge("FM717", FirstShapeWins), "is another one on a new model object", "runs wide and fresh-wide")
    assert judge("FM711", FirstShapeWins).status == "passed", "A, B, A on one object cannot show it"


def test_without_a_second_object_history_cannot_be_judged() -> None:
    one = Toy()
    silent(judge("FM717", build=lambda case: one), "one and the same object")
    silent(judge("FM717", build=lambda case: _reseeded(Toy())), "different weights")


def _reseeded(model: Toy) -> Toy:
    for weight in model.parameters():
        torch.nn.init.normal_(weight, generator=torch.Generator().manual_seed(next(_SEEDS)))
    return model


_SEEDS = iter(range(1000))


def test_the_second_object_is_built_once() -> None:
    built: list[Any] = []
    session = Session(toy_subject(build=lambda case: built.append(case) or Toy()))
    plan = session.plan
    for wish in (plan.base, plan.fresh_wide, plan.fresh_base):
        session.run(wish)
    assert len(built) == 2


# FM807.


class TimeOfRowZero(Velocity):
    def forward(self, x: Tensor, log_snr: Tensor, null: Tensor) -> Tensor:
        return super().forward(x, log_snr[:1].expand_as(log_snr), null)


class MeanTime(Velocity):
    def forward(self, x: Tensor, log_snr: Tensor, null: Tensor) -> Tensor:
        return super().forward(x, log_snr.mean().expand_as(log_snr), null)


class NoTime(Velocity):
    def forward(self, x: Tensor, log_snr: Tensor, null: Tensor) -> Tensor:
        return super().forward(x, torch.zeros_like(log_snr), null)


def _with_network(network: type[Velocity]) -> type[Toy]:
    class Other(Toy):
        def __init__(self) -> None:
            super().__init__()
            self.velocity = network(torch.Generator().manual_seed(1))
            self.eval()

    return Other


def test_each_row_answers_to_its_own_time() -> None:
    clean(judge("FM807"))
    caught(judge("FM807", _with_network(TimeOfRowZero)), "does not depend on its own time")
    caught(judge("FM807", _with_network(MeanTime)), "changes with the times of other rows")


@pytest.mark.parametrize(
    ("model", "case", "reason"),
    [(_with_network(NoTime), CASE, "does not depend on the time at all"), (Toy, CASE.with_batch(1), "a single row")],
)
def test_times_that_cannot_tell_rows_apart(model: type[Toy], case: Any, reason: str) -> None:
    silent(judge("FM807", model, case=case), reason)


# FM908.


class BlindTraining(Toy):
    def training_loss(self, images: Tensor, input_ids: Tensor, attention_mask: Tensor, generator: Any) -> Tensor:
        return super().training_loss(images, input_ids, torch.ones_like(attention_mask), generator)


class Unmasked(TextEncoder):
    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, generator: Any = None) -> Tensor:
        return super().forward(input_ids, torch.ones_like(input_ids), generator)


def test_training_must_show_as_many_tokens_as_sampling() -> None:
    clean(judge("FM908"))
    caught(judge("FM908", BlindTraining), "tokens of", "in training and")


# The plan.


def test_portrait_and_landscape_have_one_area() -> None:
    plan = Plan(toy_subject())
    wide, tall = plan.wide.case, plan.tall.case
    assert (wide.height, wide.width) == (tall.width, tall.height)
    assert wide.height != wide.width


def test_the_unguided_crowd_has_the_rows_of_a_doubled_call() -> None:
    plan = Plan(toy_subject())
    assert plan.unguided_crowd.case.batch == 2 * plan.base.case.batch
    assert plan.unguided_crowd.case.guidance_scale == plan.subject.spec.neutral_scale


def test_the_longest_prompt_loses_its_last_word_and_the_others_nothing() -> None:
    plan = Plan(toy_subject(case=CASE.but(prompts=("one", "one two three", "one two"))))
    assert plan.cut_short.case.prompts == ("one", "one two", "one two")
