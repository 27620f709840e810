"""The report of a power campaign: a row a noticed fault, reasons for the others, what would show more."""

import json

import pytest

from fmcheck.power import all_faults
from fmcheck.power.campaign import Baseline, Power, Trial
from fmcheck.report.context import Context
from fmcheck.report.layout import plain
from fmcheck.report.power import faults_json, faults_page, power_json, power_page
from fmcheck.subjects.tiny import subject


def fault(name: str):
    return all_faults([name])[0]


@pytest.fixture
def found() -> Power:
    baseline = Baseline(outcomes={}, results={}, rules=(), calls=81, seconds=8.0)
    codes = ("FM401", "FM501", "FM502", "FM506")
    trials = (
        Trial(fault=fault("state_rounded_to_bfloat16"), status="noticed", rules=codes, message="less", calls=1),
        Trial(fault=fault("gradients_recorded"), status="warned", rules=("FM715",), calls=1),
        Trial(fault=fault("time_with_another_axis"), status="raised", message="generate raised", calls=2),
        Trial(fault=fault("picture_mirrored"), status="missed", reason="FM606 was skipped", helps=("decode",), calls=9),
        Trial(fault=fault("velocity_in_float64"), status="no effect", reason="all 9 runs are alike", calls=9),
        Trial(fault=fault("latent_shifted"), status="not planted", reason="no decode", helps=("decode",)),
        Trial(fault=fault("latent_clamped"), status="not planted", reason="no decode", helps=("decode",)),
    )
    return Power(subject="tiny", baseline=baseline, trials=trials, seconds=12.0)


def text(found: Power, **rest: str) -> list[str]:
    return plain([power_page(found, target="tiny", width=120, **rest)]).splitlines()


def test_a_noticed_fault_is_a_row_with_its_rules_and_calls(found: Power) -> None:
    lines = text(found)
    row = next(line.split() for line in lines if "state_rounded" in line)
    assert row == ["state_rounded_to_bfloat16", "FM401", "FM501", "FM502", "+1", "1"]
    assert any(line.split() == ["gradients_recorded", "FM715", "(warning)", "1"] for line in lines)
    assert any("time_with_another_axis" in line and "the pipeline itself" in line for line in lines)


def test_the_others_stand_with_their_reason_and_what_would_help(found: Power) -> None:
    lines = "\n".join(text(found))
    assert "picture_mirrored\n      FM606 was skipped; Subject(decode=...) would help (9 calls)" in lines
    assert "latent_shifted, latent_clamped\n      no decode; Subject(decode=...) would help" in lines
    assert "had no effect (1)" in lines
    assert "Subject(decode=...) 3 faults" in lines


def test_the_counts_are_told_last(found: Power) -> None:
    last = " ".join(text(found)[-2:])
    assert "7 faults: 3 noticed (1 by a warning only, 1 by an exception of the pipeline), 1 missed" in last
    assert "75.0 % of those with an effect" in last
    assert "103 generate() calls, 81 of them without a fault" in last
    assert text(found, shortfall="too few")[-1] == "FAILED: too few"


def test_json_holds_every_trial(found: Power) -> None:
    context = Context(target="tiny", subject=subject, rerun="")
    document = json.loads(power_json(found, context))
    assert document["share"] == 75.0
    assert [trial["status"] for trial in document["trials"]][:3] == ["noticed", "warned", "raised"]
    assert document["trials"][3]["would_help"] == ["Subject(decode=...)"]
    assert document["trials"][0]["noticed_by"] == ["FM401", "FM501", "FM502", "FM506"]


def test_the_list_names_needs_and_rules() -> None:
    faults = all_faults(["null_inverted"])
    lines = plain([faults_page(faults, width=100)]).splitlines()
    assert lines[1].split() == ["null_inverted", "velocity,", "velocity.null;", "FM201"]
    assert json.loads(faults_json(faults))[0]["needs"] == ["velocity", "velocity.null"]
