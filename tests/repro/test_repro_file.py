"""The file's text: comes back equal, has one name for equal finds, and says on top what it is."""

import tomllib
from datetime import date

import pytest
from hypothesis import given

from fmcheck import Case
from fmcheck.errors import DeclarationError
from fmcheck.experiment import parse_header
from fmcheck.repro import Reproduction, content_name, parse
from fmcheck.repro.heading import heading
from fmcheck.scenario import Call, Scenario
from tests.repro import examples
from tests.repro.examples import reproduction


@given(examples.reproductions)
def test_comes_back_equal(any_one: Reproduction) -> None:
    text = any_one.as_text()
    # By their text, since NaN is not equal to itself.
    back = parse(text)
    assert back.as_text() == text
    assert repr(back) == repr(any_one)


@given(examples.reproductions)
def test_the_header_is_legal_whatever_was_found(any_one: Reproduction) -> None:
    text = any_one.as_text(heading(any_one, Case(), today=date(2025, 9, 3)))
    header = parse_header(text)
    assert header.exp_id.startswith("exp_20250903_")
    assert repr(parse(text)) == repr(any_one), "the header must not leave its comments"


class TestHeading:
    def test_says_what_it_is(self) -> None:
        header = parse_header(heading(reproduction(), examples.CALL.case.but(num_steps=9), today=date(2025, 9, 3)))
        assert header.title == "FM203 wrong-guidance: came out 3.5, expected 2.5"
        assert header.purpose.endswith(f"fmcheck replay {reproduction().name}")
        assert header.key_diffs == ("steps=4 (native 9)", "batch=2 (as native)")
        assert header.core_params == "batch=2, res=16x24, steps=4, guidance=2.5, seed=0"

    def test_at_most_four_knobs(self) -> None:
        call = Call(case=Case(), kind="loss", tokens="padded", global_seed=3)
        other = reproduction(scenario=Scenario((call, call), asks=("FM203",)))
        knobs = parse_header(heading(other, examples.CALL.case)).key_diffs
        assert knobs == ("calls=2 on one object", "rules=FM203", "kind=loss", "tokens=padded")


class TestName:
    def test_from_the_content_alone(self) -> None:
        one = reproduction()
        assert one.name.startswith("fm203-")
        assert one.name.endswith(".fmcheck.toml")
        later = reproduction(versions={}, prints=(), also=("FM301",), time_limit=5.0)
        assert later.name == one.name

    def test_equal_scales_make_one_file(self) -> None:
        whole, real = (Scenario((examples.CALL.but(guidance_scale=scale),)) for scale in (2, 2.0))
        assert whole == real
        assert content_name("tiny", "FM203", whole) == content_name("tiny", "FM203", real)

    def test_other_finds_make_others(self) -> None:
        scenario = Scenario((examples.CALL,))
        names = {
            content_name("tiny", "FM203", scenario),
            content_name("mine:subject", "FM203", scenario),
            content_name("tiny", "FM204", scenario),
            content_name("tiny", "FM203", Scenario((examples.CALL,), asks=("FM203",))),
            content_name("tiny", "FM203", Scenario((examples.CALL.but(seed=1),))),
            content_name("tiny", "FM203", Scenario((examples.CALL.but(tokens="padded"),))),
        }
        assert len(names) == 6


def test_plain_toml_in_a_fixed_order() -> None:
    table = tomllib.loads(reproduction().as_text("# header\n"))
    assert list(table) == [
        "schema",
        "subject",
        "expect",
        "time_limit",
        "finding",
        "scenario",
        "versions",
        "settings",
        "prints",
    ]
    assert table["finding"]["code"] == "FM203"
    assert "diagnosis" not in table["finding"]
    assert reproduction().as_text() == reproduction().as_text()


def test_a_prompt_that_utf8_cannot_hold() -> None:
    broken = reproduction(scenario=Scenario((examples.CALL.but(prompts=("half \ud800", "b")),)))
    with pytest.raises(DeclarationError, match=r"lone surrogate '\\ud800'"):
        broken.as_text()


def test_a_long_message_is_cut() -> None:
    from dataclasses import replace

    long = reproduction(finding=replace(examples.FINDING, message="x" * 10_000 + "\ud800"))
    assert len(parse(long.as_text()).finding.message) == 4000
