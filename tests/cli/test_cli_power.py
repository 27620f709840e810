"""`fmcheck power`: what it prints, and its exit codes."""

import json
from collections.abc import Callable

import pytest

Command = Callable[..., tuple[int, str, str]]
pytestmark = pytest.mark.usefixtures("project")


def test_faults_are_planted_and_the_exit_code_is_0_whatever_was_missed(fmcheck_command: Command) -> None:
    names = ("velocity_negated", "picture_mirrored", "latent_shifted")
    code, out, _ = fmcheck_command("power", "toy:subject", *names, "--select", "FM303,FM606")
    assert code == 0
    assert "velocity_negated" in out
    assert "3 faults: 1 noticed, 1 missed, 0 without effect, 1 not planted" in " ".join(out.split())
    assert "Subject(decode=...) 2 faults" in out


def test_a_demanded_share_that_is_not_met_is_1(fmcheck_command: Command) -> None:
    arguments = ("power", "toy:subject", "velocity_negated", "picture_mirrored", "--select", "FM303,FM606")
    code, out, _ = fmcheck_command(*arguments, "--min-noticed", "75")
    assert code == 1
    assert "FAILED: 50.0 % of the faults with an effect were noticed, and 75 % must be" in " ".join(out.split())
    assert fmcheck_command(*arguments, "--min-noticed", "50")[0] == 0


def test_a_share_of_nothing_is_not_met(fmcheck_command: Command) -> None:
    code, _, _ = fmcheck_command("power", "toy:subject", "latent_shifted", "--select", "FM303", "--min-noticed", "1")
    assert code == 1


def test_json_is_the_only_thing_on_stdout(fmcheck_command: Command) -> None:
    code, out, _ = fmcheck_command(
        "power", "toy:talking", "velocity_negated", "--select", "FM303", "--output-format", "json"
    )
    assert code == 0
    document = json.loads(out)
    assert document["subject"] == "toy:talking"
    assert document["trials"][0]["noticed_by"] == ["FM303"]
    assert document["trials"][0]["generate_calls"] == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("toy:subject", "velocity_negatd"), "did you mean 'velocity_negated'"),
        (("toy:nothing",), "has no 'nothing'"),
        (("toy:crashing", "velocity_negated"), "the state is nowhere"),
        (("toy:subject", "velocity_negated", "--select", "XX1"), "no rule code starts with 'XX1'"),
        (("toy:subject", "--min-noticed", "101"), "--min-noticed"),
    ],
)
def test_wrong_usage_is_2_and_says_what(fmcheck_command: Command, arguments: tuple[str, ...], said: str) -> None:
    code, out, err = fmcheck_command("power", *arguments)
    assert code == 2
    assert said in " ".join(err.split())
    assert out == ""


def test_the_list_makes_no_run(fmcheck_command: Command) -> None:
    code, out, _ = fmcheck_command("power", "--list")
    assert code == 0
    assert "velocity_negated  velocity; FM303 FM302" in out
    code, out, _ = fmcheck_command("power", "--list", "--output-format", "json")
    assert len(json.loads(out)) >= 60
