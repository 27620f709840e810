"""FM709 to FM711 and FM713 to FM715 on toys that leave traces behind."""

import os
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fmcheck.rules import get_rule
from fmcheck.run import Session
from tests.rules.toy import Codec, Toy, Velocity, judge, toy_subject


class WithNetwork(Toy):
    """A toy with another velocity network."""

    network: type[Velocity] = Velocity

    def __init__(self) -> None:
        super().__init__()
        self.velocity = self.network(torch.Generator().manual_seed(0)).eval()


class Around(Toy):
    """A toy that does something before its loop."""

    def integrate(self, x: Tensor, num_steps: int, scale: float, generator: torch.Generator) -> Tensor:
        self.before()
        return super().integrate(x, num_steps, scale, generator)

    def before(self) -> None:
        raise NotImplementedError


# FM709.


class WeightsMove(Around):
    def before(self) -> None:
        self.velocity.weight.mul_(0.9)


class StaysInTrainMode(Around):
    def before(self) -> None:
        self.velocity.train()


class HooksPileUp(Around):
    def before(self) -> None:
        self.velocity.register_forward_hook(lambda *_: None)


class GradFlagsMove(Around):
    def before(self) -> None:
        self.velocity.requires_grad_(False)


class PutsBack(Toy):
    def integrate(self, x: Tensor, num_steps: int, scale: float, generator: torch.Generator) -> Tensor:
        kept = self.velocity.weight.detach().clone()
        self.velocity.weight.mul_(0.9)
        try:
            return super().integrate(x, num_steps, scale, generator)
        finally:
            self.velocity.weight.copy_(kept)


class Grows(Around):
    def before(self) -> None:
        self.adapter = nn.Linear(2, 2)


@pytest.mark.parametrize(
    ("model", "text"),
    [
        (WeightsMove, "the run changed the model: velocity.weight changed its values"),
        (
            StaysInTrainMode,
            "the run changed the model: train/eval mode changed: velocity, velocity.dropout (2 modules)",
        ),
        (HooksPileUp, "the run changed the model: hooks on velocity changed"),
        (GradFlagsMove, "the run changed the model: velocity.weight.requires_grad changed to False"),
    ],
    ids=["weights", "mode", "hooks", "flags"],
)
def test_changes_of_the_model_are_named(model: type[Toy], text: str) -> None:
    outcome = judge("FM709", model)
    assert outcome.status == "failed"
    assert outcome.findings[0].message == text


def test_a_model_that_is_put_back_is_as_found() -> None:
    assert judge("FM709", PutsBack).status == "passed"


def test_parameters_that_appear_are_left_to_fm403() -> None:
    assert judge("FM709", Grows).status == "passed"
    assert judge("FM403", Grows).status == "failed"


# FM710.


class MasksPadding(Toy):
    @torch.no_grad()
    def generate(self, input_ids: Tensor, attention_mask: Tensor, *rest: Any, **given: Any) -> Tensor:
        input_ids.masked_fill_(attention_mask == 0, 5)
        return super().generate(input_ids, attention_mask, *rest, **given)


class ScalesInPlace(WithNetwork):
    class network(Velocity):
        def forward(self, x: Tensor, log_snr: Tensor, null: Tensor) -> Tensor:
            return super().forward(x.mul_(0.99), log_snr, null)


def test_the_callers_tensors_are_watched() -> None:
    findings = [f for f in judge("FM710", MasksPadding).findings if f.run == "base"]
    assert [f.message for f in findings] == ["the run changed the tensors it was given: input_ids"]


def test_tensors_that_the_loop_passes_on_are_watched() -> None:
    findings = [f for f in judge("FM710", ScalesInPlace).findings if f.run == "base"]
    assert findings[0].message == "velocity wrote into its input x"
    assert findings[0].where == "run base, velocity[0]"
    assert len(findings) == 4


def test_the_loss_is_watched_too() -> None:
    assert "loss" in {f.run for f in judge("FM710", ScalesInPlace).findings}


# FM711.


class KeepsItsNoise(Toy):
    def initial_state(self, z: Tensor, height: int, width: int) -> Tensor:
        x = super().initial_state(z, height, width)
        self.calls = getattr(self, "calls", 0) + 1
        return x + self.calls


class NetworkKeeps(WithNetwork):
    class network(Velocity):
        calls = 0

        def forward(self, x: Tensor, log_snr: Tensor, null: Tensor) -> Tensor:
            self.calls += 1
            return super().forward(x, log_snr, null) * (1 + self.calls / 100)


class DecoderKeeps(Toy):
    def __init__(self) -> None:
        super().__init__()

        class Keeps(Codec):
            gain = 1.0

            def decode(self, x: Tensor) -> Tensor:
                self.gain *= 0.99
                return self.gain * super().decode(x)

        self.codec = Keeps(torch.Generator().manual_seed(0))


class OneStepMore(Toy):
    calls = 0

    def edges(self, num_steps: int) -> Tensor:
        self.calls += 1
        return super().edges(num_steps + (self.calls > 3))


def test_a_kept_initial_state_is_named_and_nothing_after_it() -> None:
    findings = judge("FM711", KeepsItsNoise).findings
    assert len(findings) == 1
    assert findings[0].message.startswith("the initial state differs on the second call; largest difference ")
    assert findings[0].message.endswith(", allowed 0 (bitwise)")
    assert findings[0].diagnosis == "text latent, noise or mapping is kept from an earlier call"


def test_a_network_that_keeps_something_is_named() -> None:
    finding = judge("FM711", NetworkKeeps).findings[0]
    assert finding.message.startswith("the output of velocity[0] differs on the second call")
    assert finding.diagnosis == "the network keeps something from call to call"


def test_a_decoder_that_keeps_something_is_named() -> None:
    finding = judge("FM711", DecoderKeeps).findings[0]
    assert finding.message.startswith("the result differs on the second call")


def test_another_number_of_calls_is_named() -> None:
    assert judge("FM711", OneStepMore).findings[0].message == "4 network calls the first time, 5 the second"


# FM713.


class SetsThreads(Around):
    def before(self) -> None:
        torch.set_num_threads(torch.get_num_threads() + 1)


class SetsEnvironment(Around):
    def before(self) -> None:
        os.environ["FMCHECK_TOY"] = "set"


class GradOffInTraining(Toy):
    def train_log_snr(self, t: Tensor) -> Tensor:
        torch.set_grad_enabled(False)
        return super().train_log_snr(t)


@pytest.mark.parametrize(
    ("model", "text"),
    [
        (SetsThreads, "generate left process-wide settings changed: threads"),
        (SetsEnvironment, "generate left process-wide settings changed: environment"),
        (GradOffInTraining, "loss left process-wide settings changed: grad mode"),
    ],
    ids=["threads", "environment", "grad"],
)
def test_process_settings_are_named_and_put_back(model: type[Toy], text: str) -> None:
    threads = torch.get_num_threads()
    outcome = judge("FM713", model)
    assert text in {f.message for f in outcome.findings}
    assert torch.get_num_threads() == threads
    assert "FMCHECK_TOY" not in os.environ
    assert torch.is_grad_enabled()


# FM714.


class TrainMode(Toy):
    def __init__(self) -> None:
        super().__init__()
        self.train()


class LateLayer(Toy):
    def __init__(self) -> None:
        super().__init__()
        self.velocity.dropout = nn.Dropout(0.5)


class NoDropout(TrainMode):
    def __init__(self) -> None:
        super().__init__()
        self.velocity.dropout = nn.Dropout(0.0)


def test_train_mode_is_found_at_the_network() -> None:
    findings = [f for f in judge("FM714", TrainMode).findings if f.run == "base"]
    assert [f.where for f in findings] == [f"run base, velocity[{k}]" for k in range(4)]
    assert findings[0].message == "velocity ran with dropout or batch normalisation in train mode"
    assert findings[0].diagnosis == "eval() was never called"


def test_a_layer_that_came_after_eval_is_found() -> None:
    assert judge("FM714", LateLayer).findings[0].diagnosis == "a layer inside was left in train mode"


def test_train_mode_without_dropout_changes_nothing() -> None:
    assert judge("FM714", NoDropout).status == "passed"


# FM715.


class RecordsGradients(Toy):
    generate = Toy.generate.__wrapped__  # type: ignore[attr-defined]


class RecordsAndDetaches(RecordsGradients):
    def finish(self, images: Tensor) -> Tensor:
        return images.detach()


def test_recorded_gradients_are_a_warning() -> None:
    outcome = judge("FM715", RecordsGradients)
    assert outcome.status == "passed"
    found = [(f.severity, f.message) for f in outcome.findings if f.run == "base"]
    assert found == [("warning", "gradients were recorded in 4 of 4 velocity calls")]


def test_detached_pictures_do_not_hide_recorded_gradients() -> None:
    messages = {f.message for f in judge("FM715", RecordsAndDetaches).findings if f.run == "base"}
    assert messages == {"gradients were recorded in 4 of 4 velocity calls"}


def test_the_clean_toy_passes_every_one_of_them() -> None:
    session = Session(toy_subject())
    for code in ("FM709", "FM710", "FM711", "FM713", "FM714", "FM715"):
        outcome = session.judge(get_rule(code))
        assert (outcome.status, len(outcome.findings)) == ("passed", 0)
        assert outcome.checks
