"""FM6 on hand-written pipelines whose autoencoder chain is wrong in one place."""

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.rules.loops import FACTOR, Pipeline, Style, but, caught, clean, failing, judge, outcomes, silent

CODES = ["FM601", "FM602", "FM603", "FM604", "FM605", "FM606"]


class Watching(Pipeline):
    """Keeps what the last step was made of; `pick()` says what is decoded."""

    def branches(self, x: Tensor, t: Tensor, guided: bool) -> tuple[Tensor, Tensor | None]:
        self.at, (self.cond, self.uncond) = x, super().branches(x, t, guided)
        return self.cond, self.uncond

    def step(self, x: Tensor, start: Tensor, end: Tensor, scale: float, last: bool) -> Tensor:
        self.dt = end - start
        y = super().step(x, start, end, scale, last)
        return self.pick(y) if last else y

    def pick(self, y: Tensor) -> Tensor:
        return y


def decoding(pick: Any) -> type[Pipeline]:
    class Decoding(Watching):
        def pick(self, y: Tensor) -> Tensor:
            return pick(self, y)

    return Decoding


def finishing(finish: Any) -> type[Pipeline]:
    class Finishing(Pipeline):
        def finish(self, x: Tensor) -> Tensor:
            return finish(self, super().finish, x)

    return Finishing


def sampling(change: Any) -> type[Pipeline]:
    class Sampling(Pipeline):
        def sample(self, x: Tensor) -> Tensor:
            return change(x, self.spec.latent_scale, self.spec.latent_shift)

    return Sampling


TENSORS = [
    (lambda s, y: s.at, "the state before the last step is decoded"),
    (lambda s, y: s.cond, "the conditional velocity is decoded"),
    (lambda s, y: s.uncond, "the unconditional velocity is decoded"),
    (lambda s, y: s.at + s.dt * s.uncond, "the unconditional half of the state is decoded"),
    (lambda s, y: y.flip(0), "the rows of the state are in another order"),
    (lambda s, y: 2 * y + 0.25, "the state is unscaled before it enters sample"),
    (lambda s, y: y / 2, "the state is scaled once more after the loop"),
    (lambda s, y: (s.at + y) / 2, "the mean of the last two states is decoded"),
    (lambda s, y: 2 * y - s.at, "the last increment is added twice"),
    (lambda s, y: torch.cat([y, y]), "both guidance halves are decoded (x_cat)"),
    (lambda s, y: y + 0.05 * torch.cos(7 * y.flip(1)), "something else is added"),
]


@pytest.mark.parametrize(("pick", "cause"), TENSORS, ids=[cause for _, cause in TENSORS])
def test_a_wrong_tensor_is_named(pick: Any, cause: str) -> None:
    caught(judge("FM601", decoding(pick)), cause)


def test_correct_chains_pass() -> None:
    for style in (Style(), Style(decode_parts=1), Style(decode_parts=2, reciprocal=True)):
        for outcome in outcomes(CODES, style=style).values():
            clean(outcome)


def test_without_a_sample_point_the_state_is_recovered_through_the_scale() -> None:
    found = outcomes(CODES, style=Style(sample=False, decode_parts=2))
    assert found["FM603"].status == "skipped"
    for code, outcome in found.items():
        if code != "FM603":
            clean(outcome)


def test_a_last_step_of_another_weight_is_left_to_the_guidance_rule() -> None:
    class Unguided(Watching):
        def pick(self, y: Tensor) -> Tensor:
            return self.at + self.dt * self.cond

    assert set(failing(Unguided)) == {"FM203", "FM207"}


CHAINS = [
    (lambda s, f, x: s.decode(x / 0.5 + 0.25), "FM602", "sample is never called"),
    (lambda s, f, x: f(s.sample(x)), "FM602", "6 rows went through sample after the loop, expected 3"),
    (lambda s, f, x: s.decode(1.0005 * s.sample(x)), "FM602", "decode is not given what sample returned"),
    (lambda s, f, x: 0.99 * f(x), "FM606", "multiplied by 0.99"),
    (lambda s, f, x: f(x).flip(0), "FM606", "the rows are in another order"),
    (lambda s, f, x: (f(x) + 1) / 2, "FM606", "mapped to [0, 1]"),
    (lambda s, f, x: f(x).flip(1), "FM606", "the channels are in reversed order"),
    (lambda s, f, x: f(x).flip(-1), "FM606", "mirrored"),
    (lambda s, f, x: f(x.nan_to_num()), "FM605", "NaN is replaced on the way"),
]


@pytest.mark.parametrize(("finish", "code", "cause"), CHAINS, ids=[cause for *_, cause in CHAINS])
def test_a_broken_chain_is_named(finish: Any, code: str, cause: str) -> None:
    caught(judge(code, finishing(finish)), cause)


SCALES = [
    (lambda x, s, b: x, "neither scale nor shift"),
    (lambda x, s, b: x / s, "the shift is missing"),
    (lambda x, s, b: x + b, "the scale is missing"),
    (lambda x, s, b: x * s + b, "multiplied by the scale, expected divided"),
    (lambda x, s, b: x / s - b, "the shift has the wrong sign"),
    (lambda x, s, b: (x + b) / s, "the shift is added before the division"),
    (lambda x, s, b: (x / s + b) / s + b, "applied twice"),
    (lambda x, s, b: (x - b) * s, "scaled for the flow once more"),
]


@pytest.mark.parametrize(("change", "cause"), SCALES, ids=[cause for _, cause in SCALES])
def test_a_wrong_scale_is_named_and_trips_nothing_else(change: Any, cause: str) -> None:
    found = failing(sampling(change))
    assert set(found) == {"FM603"}
    caught(found["FM603"], cause)


@pytest.mark.parametrize("role", ["text", "network", "sample", "decode"])
def test_a_swallowed_exception_is_caught(role: str) -> None:
    class Swallowing(Pipeline):
        def generate(self, request: Any) -> Tensor:
            try:
                return super().generate(request)
            except RuntimeError:
                return torch.zeros(len(request.prompts), 3, request.height, request.width)

    caught(judge("FM604", Swallowing), "was swallowed: generate returned")


def test_a_lost_cause_is_a_warning() -> None:
    class Losing(Pipeline):
        def finish(self, x: Tensor) -> Tensor:
            try:
                return super().finish(x)
            except RuntimeError:
                pass
            raise ValueError("no picture")

    outcome = judge("FM604", Losing)
    assert outcome.status == "passed"
    assert {f.severity for f in outcome.findings} == {"warning"}


def test_previews_are_no_broken_chain() -> None:
    class Previews(Pipeline):
        def step(self, x: Tensor, start: Tensor, end: Tensor, scale: float, last: bool) -> Tensor:
            y = super().step(x, start, end, scale, last)
            self.finish(y)
            return y

    for code, outcome in outcomes(CODES, Previews).items():
        clean(outcome)
        # Decoding the last state a second time is wasted work, which only a strict gate refuses.
        assert {f.severity for f in outcome.findings} == ({"warning"} if code == "FM602" else set())


def test_a_codec_of_another_dtype_is_no_broken_chain() -> None:
    class Half(Pipeline):
        def finish(self, x: Tensor) -> Tensor:
            return self.decode(self.sample(x).bfloat16())

    for outcome in outcomes(["FM601", "FM602", "FM603", "FM606"], Half).values():
        clean(outcome)


def test_a_decoder_that_unscales_itself_is_declared() -> None:
    class Inside(Pipeline):
        def finish(self, x: Tensor) -> Tensor:
            return self.decode(x)

    spec, style = but(unscale_before_decode=False), Style(sample=False)
    clean(judge("FM601", Inside, spec=spec, style=style))
    silent(judge("FM603", Inside, spec=spec), "decode undoes the scale itself")


def test_a_declared_image_range_is_mapped_and_clamped() -> None:
    class Unit(Pipeline):
        def decode(self, x: Tensor) -> Tensor:
            return 1.5 * super().decode(x)

        def finish(self, x: Tensor) -> Tensor:
            return ((super().finish(x) + 1) / 2).clamp(0, 1)

    clean(judge("FM606", Unit, spec=but(decode_range=(-1.0, 1.0), image_range=(0.0, 1.0))))
    assert FACTOR == 4
