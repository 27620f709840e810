"""FM909: the law that training asks for, and where it carries the sampler."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fmcheck.record.training import TrainingReading
from fmcheck.record.training_law import TrainingLaw, training_law
from fmcheck.rules.fm9_closure import _losses
from fmcheck.run import Outcome, Session
from tests.rules.toy import SPEC, Toy, judge, toy_subject


def law_of(model: type[Toy]) -> TrainingLaw:
    session = Session(toy_subject(model))
    runs = {name: session.run(wish) for name, wish in _losses(session.plan).items()}
    return training_law({name: TrainingReading(run.trace, SPEC) for name, run in runs.items()})


class DataByHeun(Toy):
    """The network predicts the data end; the last step is Euler's, since a data end says nothing at `t = 1`."""

    def velocity_at(self, x: Tensor, t: Tensor, scale: float) -> Tensor:
        ratio = 1 - SPEC.sigma_min
        return (super().velocity_at(x, t, scale) - ratio * x) / (1 - ratio * t)

    def integrate(self, x: Tensor, num_steps: int, scale: float, generator: torch.Generator) -> Tensor:
        edges = self.edges(num_steps)
        for k, (start, end) in enumerate(pairwise(edges)):
            first, dt = self.velocity_at(x, start, scale), end - start
            last = k + 1 == num_steps
            x = x + dt * (first if last else (first + self.velocity_at(x + dt * first, end, scale)) / 2)
        return x

    def train_target(self, x0: Tensor, x1: Tensor) -> Tensor:
        return x1


class Negated(Toy):
    def train_target(self, x0: Tensor, x1: Tensor) -> Tensor:
        return -super().train_target(x0, x1)


class AsksForData(Toy):
    def train_target(self, x0: Tensor, x1: Tensor) -> Tensor:
        return x1


class AsksForSource(Toy):
    def train_target(self, x0: Tensor, x1: Tensor) -> Tensor:
        return x0


class Backwards(Toy):
    def train_path(self, x0: Tensor, x1: Tensor, t: Tensor) -> Tensor:
        return super().train_path(x1, x0, t)


class AnotherSigma(Toy):
    def train_path(self, x0: Tensor, x1: Tensor, t: Tensor) -> Tensor:
        t = t[:, None, None, None]
        return (1 - 0.9 * t) * x0 + t * x1

    def train_target(self, x0: Tensor, x1: Tensor) -> Tensor:
        return x1 - 0.9 * x0


class Weighted(Toy):
    """A squared error with weights, as for many schedules: the same target."""

    def training_loss(
        self, images: Tensor, input_ids: Tensor, attention_mask: Tensor, generator: torch.Generator
    ) -> Tensor:
        x0 = self.initial_state(self.text_encoder(input_ids, attention_mask, generator), *images.shape[2:])
        x1 = self.codec.encode(images)
        t = self.train_times(len(x0), generator)
        null, x1 = self.train_null(x1, generator)
        v = self.velocity(self.train_path(x0, x1, t), self.train_log_snr(t), null)
        weight = (0.1 + t * (1 - t))[:, None, None, None]
        return (weight * (v - self.train_target(x0, x1)).square()).sum()


class Absolute(Toy):
    """An absolute error, whose gradient does not show the target."""

    def training_loss(self, images: Tensor, **text: Any) -> Tensor:
        x0 = self.initial_state(self.text_encoder(**text), *images.shape[2:])
        x1 = self.codec.encode(images)
        t = self.train_times(len(x0), text["generator"])
        v = self.velocity(self.train_path(x0, x1, t), self.train_log_snr(t), torch.zeros(len(x0), dtype=torch.bool))
        return F.l1_loss(v, self.train_target(x0, x1))


class OneTime(Toy):
    def train_times(self, rows: int, generator: torch.Generator) -> Tensor:
        return super().train_times(1, generator).expand(rows)


class TwoTimes(Toy):
    def train_times(self, rows: int, generator: torch.Generator) -> Tensor:
        return 0.3 + 0.4 * torch.randint(2, (rows,), generator=generator)


class ShortSampler(Toy):
    def edges(self, num_steps: int) -> Tensor:
        return 0.98 * super().edges(num_steps)


class TestTheLaw:
    @pytest.mark.parametrize("model", [Toy, Weighted])
    def test_it_is_the_declared_one(self, model: type[Toy]) -> None:
        law, ratio = law_of(model), 1 - SPEC.sigma_min
        assert law.alpha == pytest.approx(-ratio, abs=1e-5)
        assert law.remains == pytest.approx(SPEC.sigma_min, abs=1e-5)
        torch.testing.assert_close(law.beta, torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64), rtol=0, atol=1e-5)
        torch.testing.assert_close(law.path, torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64), rtol=0, atol=1e-5)

    def test_a_target_without_source_says_so(self) -> None:
        law = law_of(AsksForData)
        assert law.alpha == 0
        assert law.remains is None

    def test_a_path_of_the_other_direction_is_seen(self) -> None:
        assert not law_of(Backwards).leads_to_data
        assert law_of(Toy).leads_to_data


class TestTheRule:
    @pytest.mark.parametrize("model", [Toy, Weighted])
    def test_a_closed_loop_is_clean(self, model: type[Toy]) -> None:
        outcome = judge("FM909", model)
        assert outcome.status == "passed"
        assert "training asks for -0.99000 x0 +1.00000 x1 at t = 1" in outcome.measured[0]

    @pytest.mark.parametrize(
        ("model", "cause"),
        [
            (Negated, "+1.99 x0 -1 x1"),
            (AsksForData, "the target is the data end, and the sampler integrates it as a velocity"),
            (AsksForSource, "the target is the source end, and the sampler integrates it as a velocity"),
            (Backwards, "training runs from data to source"),
            (AnotherSigma, "training leaves 0.1 of the source at the data end, the spec declares sigma_min 0.01"),
            (ShortSampler, "+0.0298 x0 +0.98 x1"),
        ],
    )
    def test_an_open_one_is_explained(self, model: type[Toy], cause: str) -> None:
        outcome = judge("FM909", model)
        assert outcome.status == "failed", _shown(outcome)
        assert cause in _shown(outcome)

    def test_a_loss_that_is_no_squared_error_is_not_judged(self) -> None:
        outcome = judge("FM909", Absolute)
        assert outcome.status == "not informative", _shown(outcome)
        assert "the loss" in outcome.reason

    @pytest.mark.parametrize("model", [OneTime, TwoTimes])
    def test_too_few_times_show_no_law(self, model: type[Toy]) -> None:
        outcome = judge("FM909", model)
        assert outcome.status == "not informative", _shown(outcome)
        assert "the training times take too few values" in outcome.reason

    def test_a_prediction_of_the_data_under_heun_with_its_last_corrector_saved(self) -> None:
        outcome = judge("FM909", DataByHeun, spec=replace(SPEC, prediction="x1", solver="heun"))
        assert outcome.status == "passed", _shown(outcome)

    @pytest.mark.parametrize("scale", [0.0, 7.5])
    def test_guidance_changes_nothing_of_it(self, scale: float) -> None:
        subject = toy_subject(Toy)
        assert judge("FM909", Toy, case=subject.case.but(guidance_scale=scale)).status == "passed"


def _shown(outcome: Outcome) -> str:
    return f"{outcome.reason} {[str(finding) for finding in outcome.findings]}"
