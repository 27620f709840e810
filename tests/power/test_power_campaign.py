"""The campaign: what was noticed, by whom, after how many calls, and why not."""

import pytest
import torch
from torch import Tensor

from fmcheck.errors import DeclarationError
from fmcheck.power import all_faults
from fmcheck.power.campaign import Baseline, Trial, baseline_of, power, try_fault
from fmcheck.subject import Point, Subject
from tests.rules.toy import CASE, SPEC, Toy, Velocity, toy_subject

FEW = ("FM203", "FM303", "FM501", "FM606", "FM715", "FM905")


def trial(name: str, subject: Subject | None = None, select: tuple[str, ...] = FEW) -> Trial:
    subject = subject or toy_subject()
    return try_fault(subject, all_faults([name])[0], baseline_of(subject, select))


@pytest.fixture(scope="module")
def whole() -> Baseline:
    return baseline_of(toy_subject())


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("velocity_rounded_to_bfloat16", "FM501"),
        ("halves_exchanged", "FM203"),
        ("null_inverted", "FM201"),
        ("time_in_bfloat16", "FM102"),
        ("picture_mirrored", "FM606"),
        ("weight_changed", "FM709"),
        ("global_seed_set", "FM707"),
        ("text_scaled", "FM401"),
        ("latent_shifted", "FM602"),
        ("one_step_more", "FM301"),
    ],
)
def test_what_one_run_shows_is_noticed_in_one_call(whole: Baseline, name: str, code: str) -> None:
    found = try_fault(toy_subject(), all_faults([name])[0], whole)
    assert found.status == "noticed"
    assert code in found.rules
    assert found.calls == 1
    assert found.message


def test_what_only_several_runs_show_costs_more(whole: Baseline) -> None:
    found = try_fault(toy_subject(), all_faults(["seed_ignored"])[0], whole)
    assert found.status == "noticed"
    assert found.calls > 1


def test_a_fault_of_training_costs_no_call_of_generate(whole: Baseline) -> None:
    found = try_fault(toy_subject(), all_faults(["trained_off_the_path"])[0], whole)
    assert (found.status, found.calls) == ("noticed", 0)


def test_a_rule_that_only_warns_is_named_as_such() -> None:
    found = trial("gradients_recorded", select=("FM715",))
    assert (found.status, found.rules, found.noticed) == ("warned", ("FM715",), True)


def test_a_missed_fault_says_what_the_rules_made_of_it() -> None:
    found = trial("text_scaled", select=("FM203",))
    assert found.status == "missed"
    assert found.reason == "FM401 was not selected"


def test_a_missed_fault_names_the_point_that_would_show_it() -> None:
    found = trial("picture_mirrored", toy_subject(decode=None))
    assert found.status == "missed"
    assert "FM606 was skipped" in found.reason
    assert found.helps == ("decode",)


@pytest.mark.parametrize(
    ("name", "without", "helps"),
    [
        ("latent_shifted", {"decode": None}, ("decode",)),
        ("sample_skipped", {"sample": None}, ("sample",)),
        ("text_scaled", {"text": None}, ("text",)),
        ("trained_off_the_path", {"loss": None, "loss_entry": None}, ("loss",)),
        ("null_inverted", {"velocity": Point("velocity", {"null": None})}, ("velocity.null",)),
        ("velocity_decoded", {"decode": None}, ("decode",)),
    ],
)
def test_a_fault_without_a_place_names_the_missing_point(name: str, without: dict, helps: tuple[str, ...]) -> None:
    found = trial(name, toy_subject(**without))
    assert found.status == "not planted"
    assert found.helps == helps
    assert found.calls == 0


def test_an_argument_that_no_call_passes_is_named() -> None:
    class Unconditional(Velocity):
        def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
            return super().forward(x, log_snr, torch.zeros(len(x), dtype=torch.bool))

    class Loop(Toy):
        def __init__(self) -> None:
            super().__init__()
            self.velocity = Unconditional(torch.Generator().manual_seed(0))

        def velocity_at(self, x: Tensor, t: Tensor, scale: float) -> Tensor:
            return self.velocity(x, self.log_snr(t, len(x)))

    found = trial("null_inverted", toy_subject(Loop))
    assert (found.status, found.helps) == ("not planted", ("velocity.null",))
    assert "no tensor is passed as velocity.null" in found.reason


def test_halves_that_are_not_there_cannot_be_exchanged() -> None:
    class Unguided(Toy):
        def velocity_at(self, x: Tensor, t: Tensor, scale: float) -> Tensor:
            return self.velocity(x, self.log_snr(t, len(x)), self.null(len(x), len(x)))

    found = trial("halves_exchanged", toy_subject(Unguided))
    assert found.status == "not planted"
    assert "guidance is off" in found.reason


def test_what_changes_no_bit_had_no_effect() -> None:
    # The unguided toy has no second half, and the sum of its guidance does not matter.
    class Rounds(Toy):
        def velocity_at(self, x: Tensor, t: Tensor, scale: float) -> Tensor:
            return super().velocity_at(x, t, scale).bfloat16().float() * 0

    found = trial("velocity_negated", toy_subject(Rounds), select=("FM203",))
    assert found.status == "no effect"
    assert "bit for bit" in found.reason


def test_what_the_pipeline_itself_refuses_is_noticed() -> None:
    found = trial("time_with_another_axis", select=("FM501",))
    assert found.status == "raised"
    assert "expected one axis" in found.message


def test_a_rule_that_fails_without_a_fault_notices_none() -> None:
    class Mirrored(Toy):
        def finish(self, images: Tensor) -> Tensor:
            return images.flip(-2)

    subject = toy_subject(Mirrored)
    baseline = baseline_of(subject, FEW)
    assert baseline.failing == ["FM606"]
    found = try_fault(subject, all_faults(["picture_mirrored"])[0], baseline)
    assert found.status == "missed"
    assert "FM606 has a finding without the fault already" in found.reason


def test_a_pipeline_that_raises_without_a_fault_is_refused() -> None:
    class Raises(Toy):
        def finish(self, images: Tensor) -> Tensor:
            raise ValueError("no pictures today")

    with pytest.raises(DeclarationError, match="no pictures today"):
        baseline_of(toy_subject(Raises))


def test_share_counts_what_was_planted_and_had_an_effect() -> None:
    names = ["velocity_doubled", "text_scaled", "latent_shifted"]
    said: list[str] = []
    found = power(toy_subject(decode=None), all_faults(names), select=("FM303",), on_fault=said.append)
    assert [t.status for t in found.trials] == ["noticed", "missed", "not planted"]
    assert found.share == 50.0
    assert found.calls == found.baseline.calls + sum(t.calls for t in found.trials)
    assert said == ["without a fault", *names]


def test_a_flow_from_noise_without_codec_can_be_tried_too() -> None:
    class FromNoise(Toy):
        def initial_state(self, z: Tensor, height: int, width: int) -> Tensor:
            return z.reshape(-1, SPEC.latent_channels, height // SPEC.downsampling, width // SPEC.downsampling)

    bare = {"text": None, "encode": None, "sample": None, "decode": None, "entry": None, "loss": None}
    subject = toy_subject(FromNoise, **bare, loss_entry=None, case=CASE.but(num_steps=3))
    found = power(subject, all_faults(["velocity_negated", "velocity_of_the_call_before"]), select=("FM3", "FM5"))
    assert all(t.noticed for t in found.trials)


@pytest.mark.slow
def test_on_the_tiny_model_every_fault_is_noticed_by_a_rule_that_it_names() -> None:
    from fmcheck.subjects.tiny import subject

    found = power(subject, all_faults())
    assert not found.of("missed")
    assert {t.fault.name for t in found.of("no effect")} == {"sampled_in_train_mode", "velocity_in_float64"}
    assert found.of("not planted") == []
    unnamed = [t.fault.name for t in found.trials if t.noticed and not set(t.rules) & set(t.fault.rules)]
    assert unnamed == []
