"""FM406 and FM407 on toys whose starts have another law in training than in sampling, or are no normal noise."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from fmcheck.case import Case
from tests.rules.loops import Pipeline, caught, clean, silent
from tests.rules.loops import judge as judge_loop
from tests.rules.toy import CASE, SPEC, TextEncoder, Toy, judge

# FM406: text latents.


def with_text(latent: Any, dropout: float = 0.0) -> type[Toy]:
    """A toy whose text latent is `latent(mean, width, eps, training)`; the toy's own is `mean + 0.5 eps`."""

    class Encoder(TextEncoder):
        def __init__(self, generator: torch.Generator) -> None:
            super().__init__(generator)
            self.dropout = torch.nn.Dropout(dropout)

        def forward(self, input_ids: Tensor, attention_mask: Tensor, generator: torch.Generator) -> Tensor:
            silent_generator = torch.Generator().manual_seed(0)
            noise = 0.5 * torch.randn(len(input_ids), self.words.shape[1], generator=silent_generator)
            mean = super().forward(input_ids, attention_mask, torch.Generator().manual_seed(0)) - noise
            eps = torch.randn(mean.shape, generator=generator)
            return self.dropout(latent(mean, 0.5, eps, torch.is_grad_enabled()))

    class Other(Toy):
        def __init__(self) -> None:
            super().__init__()
            self.text_encoder = Encoder(torch.Generator().manual_seed(0)).eval()

    return Other


DRIFTS = [
    (lambda m, s, e, training: m + s * e * (not training), "training takes the mean of the text latent"),
    (lambda m, s, e, training: m + s * e * training, "sampling takes the mean of the text latent"),
    (lambda m, s, e, training: m + s * e * (1.0 if training else 0.8), "times as wide in sampling as in training"),
    (lambda m, s, e, training: m + (s * s if training else s) * e, "about 2 times as wide in sampling"),
    (lambda m, s, e, training: (0.5 if training else 1.0) * m + s * e, "those of training multiplied by 2"),
    (lambda m, s, e, training: m + s * e[:1], "one noise for all of its rows"),
    (lambda m, s, e, training: (0.9 if training else 1.0) * m + 0 * e, "multiplied by 1.11"),
]


@pytest.mark.parametrize(("latent", "cause"), DRIFTS, ids=[cause for _, cause in DRIFTS])
def test_a_text_latent_of_another_law_is_named(latent: Any, cause: str) -> None:
    caught(judge("FM406", with_text(latent)), cause)


@pytest.mark.parametrize("width", [0.5, 1e-3, 0.0])
def test_one_law_passes_however_wide_it_is(width: float) -> None:
    clean(judge("FM406", with_text(lambda m, _, e, training: m + width * e)))


class DropsPrompts(Toy):
    """Training replaces one prompt in four by the empty one, as a code base without a null indicator does."""

    def training_loss(self, images: Tensor, input_ids: Tensor, attention_mask: Tensor, generator: Any) -> Tensor:
        dropped = torch.rand(len(input_ids), generator=generator) < 0.25
        input_ids, attention_mask = input_ids.clone(), attention_mask.clone()
        input_ids[dropped, 1:] = attention_mask[dropped, 1:] = 0
        return super().training_loss(images, input_ids, attention_mask, generator)


def test_rows_count_for_the_prompt_that_the_encoder_was_told() -> None:
    clean(judge("FM406", DropsPrompts))


def test_what_the_latents_do_not_show_is_said() -> None:
    class InTrainMode(with_text(lambda m, s, e, training: m + s * e, dropout=0.1)):  # type: ignore[misc]
        def training_loss(self, *given: Any, **named: Any) -> Tensor:
            self.text_encoder.train()
            return super().training_loss(*given, **named)

    silent(judge("FM406", InTrainMode), "dropout is active in the text encoder")
    silent(judge("FM406", spec=replace(SPEC, initial_state="noise")), "the flow starts at noise")
    assert judge("FM406", loss=None).status == "skipped"


def test_texts_stand_for_prompts_where_there_are_no_tokens() -> None:
    class Trained(Pipeline):
        def training_loss(self, request: Any) -> Tensor:
            size = (3, request.height // 4, request.width // 4)
            x = self.initial(self.text(request.prompts, request.generator, size), size)
            return self.network(x, torch.zeros(len(x)), torch.zeros(len(x), dtype=torch.bool)).square().mean()

    changes = {"loss": lambda model, request: model.training_loss(request), "loss_entry": "training_loss"}
    case = Case(height=16, width=16, prompts=("a", "b"))
    clean(judge_loop("FM406", Trained, case=case, **changes))


# FM407: noise.

NOISE = replace(SPEC, initial_state="noise")


def from_noise(draw: Any) -> type[Toy]:
    """A toy that starts at `draw(shape, generator, training)`."""

    class FromNoise(Toy):
        def start(self, like: Tensor, generator: torch.Generator) -> Tensor:
            return draw(like.shape, generator, torch.is_grad_enabled())

        def integrate(self, x: Tensor, num_steps: int, scale: float, generator: torch.Generator) -> Tensor:
            return super().integrate(self.start(x, generator), num_steps, scale, generator)

        def train_null(self, x1: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
            self.noise = self.start(x1, generator)
            return super().train_null(x1, generator)

        def train_path(self, x0: Tensor, x1: Tensor, t: Tensor) -> Tensor:
            return super().train_path(self.noise, x1, t)

        def train_target(self, x0: Tensor, x1: Tensor) -> Tensor:
            return super().train_target(self.noise, x1)

    return FromNoise


def normal(shape: Any, generator: torch.Generator, training: bool) -> Tensor:
    return torch.randn(shape, generator=generator)


def only(in_training: bool, change: Any) -> Any:
    """Normal noise, changed on one side."""

    def draw(shape: Any, generator: torch.Generator, training: bool) -> Tensor:
        x = normal(shape, generator, training)
        return change(x) if training == in_training else x

    return draw


def test_normal_noise_passes() -> None:
    clean(judge("FM407", from_noise(normal), spec=NOISE))
    clean(judge("FM407", from_noise(normal), spec=NOISE, case=CASE.with_batch(1)))
    half = replace(NOISE, noise_scale=0.5)
    clean(judge("FM407", from_noise(lambda *given: 0.5 * normal(*given)), spec=half))
    caught(judge("FM407", from_noise(normal), spec=half), "a standard deviation of ")


def test_noise_in_low_precision_passes() -> None:
    clean(judge("FM407", from_noise(lambda *given: normal(*given).bfloat16().float()), spec=NOISE))


WRONG = [
    (lambda x: x[:1].expand_as(x).clone(), "start at the same noise"),
    (lambda x: (x + x.roll(1, 0)) / 2**0.5, "rows share a part of their noise"),
    (lambda x: 0.5 * x, "a standard deviation of 0."),
    (lambda x: x + 0.5, "the noise is normal with mean 0."),
    (lambda x: 12**0.5 * (torch.special.ndtr(x) - 0.5), "the noise is uniform"),
    (lambda x: torch.cat([x[:1] * 2, x[1:]]), "the mean square of row "),
    (lambda x: torch.sign(x), "no known law"),
]


@pytest.mark.parametrize("in_training", [False, True])
@pytest.mark.parametrize(("change", "told"), WRONG, ids=[told for _, told in WRONG])
def test_other_noise_is_named_and_the_side_it_is_on(change: Any, told: str, in_training: bool) -> None:
    outcome = judge("FM407", from_noise(only(in_training, change)), spec=NOISE, case=CASE.but(height=128, width=128))
    caught(outcome, told)
    side = "run loss, solved from its states" if in_training else "runs base and other-seed"
    assert {finding.where for finding in outcome.findings} == {side}


def test_a_network_that_is_told_another_time_does_not_train_with_other_noise() -> None:
    """The noise is solved for by the told time; at a wrong one the image would be left in it. FM901 names it."""

    class ToldLate(from_noise(normal)):  # type: ignore[misc]
        def train_path(self, x0: Tensor, x1: Tensor, t: Tensor) -> Tensor:
            return super().train_path(x0, x1, 0.9 * t)

    assert not judge("FM407", ToldLate, spec=NOISE).findings
    assert judge("FM901", ToldLate, spec=NOISE).status == "failed"


def test_half_of_the_latent_units_is_in_the_noise_that_is_solved_for() -> None:
    class Shifted(from_noise(normal)):  # type: ignore[misc]
        def train_path(self, x0: Tensor, x1: Tensor, t: Tensor) -> Tensor:
            return super().train_path(x0, x1 + 1.0, t)

    caught(judge("FM407", Shifted, spec=NOISE), "not normal with standard deviation 1")


def test_without_a_loss_only_sampling_is_judged() -> None:
    outcome = judge("FM407", from_noise(normal), spec=NOISE, loss=None, loss_entry=None)
    clean(outcome)
    assert outcome.checks == 2
    assert judge("FM407", from_noise(normal), spec=NOISE).checks == 4


def test_flows_from_text_are_left_to_the_other_rule() -> None:
    silent(judge("FM407"), "the flow starts at the text latent")
